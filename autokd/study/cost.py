"""What a search with a budget cost, and what a full training of it bought."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from autokd.jobs import NO_DISTILLATION, SEARCHED, Outcome
from autokd.metrics import VAL_AP
from autokd.storage import SearchSummary, read_record
from autokd.study.context import FullResults, RunContext
from autokd.training import recipe_length


def with_cost(run: RunContext, trained: FullResults, summary: SearchSummary) -> SearchSummary:
    """Return the summary of a search with its cost, if it had a budget.

    Args:
        run: the run.
        trained: the trainings that are reported, which do not count, but for those that were the race's too.
        summary: counts of the search.
    """
    if run.config.search.budget is None:
        return summary
    num_epochs = num_epochs_of(run)
    raced = {run_of(job_id) for job_id in run.facts.job_outcomes() if job_id.startswith("rung-")}
    race = run.facts.race
    seeds = {each.seed for each in race.rounds} if race is not None else set()
    raced |= {(digest, seed) for digest in (NO_DISTILLATION, *_racers(run)) for seed in seeds}
    longest = _longest(run, raced)
    epochs = math.fsum(outcome.reports[-1].epoch for outcome in longest if outcome.reports)
    cost = epochs / num_epochs
    gain = _gain(run, trained)
    return summary.model_copy(
        update={
            "full_trainings": round(cost, 3),
            "training_seconds": round(math.fsum(outcome.seconds for outcome in longest), 1),
            "gain_per_training": None if gain is None or cost == 0 else gain / cost,
        }
    )


def num_epochs_of(run: RunContext) -> int:
    """Return the epochs of a full training.

    Args:
        run: the run.
    """
    train = run.datasets.train
    return recipe_length(run.config.full, train.num_images, train.frames.num_turned).epochs


def run_of(job_id: str) -> tuple[str, int]:
    """Return digest and seed of a job by its id, "rung-DIGEST-sSEED-eEPOCH" or "full-DIGEST-sSEED".

    Args:
        job_id: id of the job.
    """
    parts = job_id.split("-")
    digest = parts[1]
    return digest, int(next(part for part in parts[2:] if part.startswith("s"))[1:])


def _racers(run: RunContext) -> Iterable[str]:
    race = run.facts.race
    return () if race is None else (each.digest for each in race.finalists)


def _longest(run: RunContext, raced: set[tuple[str, int]]) -> list[Outcome]:
    """Return the last outcome of each training of the search: those that it continues are part of it."""
    found: dict[tuple[str, int], Outcome] = {}

    def add(key: tuple[str, int], outcome: Outcome) -> None:
        known = found.get(key)
        if outcome.reports and (known is None or known.reports[-1].epoch < outcome.reports[-1].epoch):
            found[key] = outcome

    for trial in run.study.get_trials(deepcopy=False):
        record = read_record(trial)
        if record.outcome is not None and record.reused_from is None:
            add((record.digest, record.seed), record.outcome)
    for job_id, outcome in run.facts.job_outcomes().items():
        if not job_id.startswith("proxy-") and run_of(job_id) in raced:
            add(run_of(job_id), outcome)
    return list(found.values())


def _gain(run: RunContext, trained: FullResults) -> float | None:
    seeds = run.config.full.seeds
    val_ap = {
        each.name: [o.metrics[VAL_AP] for o in each.outcomes(trained.outcomes, seeds) if o.status == "finished"]
        for each in trained.distillers
    }
    ours, none = val_ap.get(SEARCHED), val_ap.get(NO_DISTILLATION)
    return statistics.fmean(ours) - statistics.fmean(none) if ours and none else None


__all__ = ["num_epochs_of", "run_of", "with_cost"]
