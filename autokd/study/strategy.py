"""The two ways to search: by a budget of full trainings (the default), or by proxies and finalists as the file says.

With a budget:

1. Candidates (the portfolio first, then the sampler's) train on the full recipe's own schedule and are judged after a
   tenth of it: these are the trials of the study.
2. The best third go on from their checkpoints to a third of the training, the best half of those to the end.
3. These race over paired seeds, "none" among them: what reached the end has run the race's first round already.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from autokd.detectors import FirstTrials, detector_family_of
from autokd.jobs import SEARCHED, Outcome, make_rung_job
from autokd.space import AnySpace, PartSpace
from autokd.storage import read_record
from autokd.study.budget import BudgetSplit, split_budget
from autokd.study.context import FullResults, RunContext
from autokd.study.cost import num_epochs_of
from autokd.study.distillers import NamedDistiller, baseline_distillers
from autokd.study.finalists import Finalist, best_trials, full_finalist_seed
from autokd.study.full_race import FullRace, race_words
from autokd.study.phased_driver import Phases
from autokd.study.phases import Stage, proxy_stage, race_finalists, run_jobs, search, train_in_full
from autokd.study.reward import Reward
from autokd.training import CHECKPOINT_ARTIFACT


def search_phases(run: RunContext, space: AnySpace, first: FirstTrials) -> Phases[FullResults]:
    """Search, let the best race, train the winner in full beside the baselines.

    Args:
        run: the run.
        space: the part of the space that the pair of detectors supplies.
        first: trials to begin the search with.
    """
    winner = yield from (_by_proxies if run.config.search.budget is None else _by_budget)(run, space, first)
    distillers = baseline_distillers(run.config.full, detector_family_of(run.config.student))
    if winner is not None:
        distillers.append(NamedDistiller(SEARCHED, winner.spec, winner.promoted))
    return (yield from train_in_full(run, distillers))


def split_of(run: RunContext) -> BudgetSplit:
    """Return the trainings that the budget of a run pays.

    Args:
        run: a run with a budget.
    """
    budget, full = run.config.search.budget, run.config.full
    assert budget is not None, "the caller has looked"
    return split_budget(budget, num_epochs_of(run), len(full.seeds))


def _by_proxies(run: RunContext, space: AnySpace, first: FirstTrials) -> Phases[Finalist | None]:
    reward = yield from search(run, space, first, proxy_stage(run.config))
    return (yield from race_finalists(run, reward))


def _by_budget(run: RunContext, space: AnySpace, first: FirstTrials) -> Phases[Finalist | None]:
    split, seed = split_of(run), full_finalist_seed(run.config.full.seeds)
    run.observer.say(_words(split))
    cut = split.cuts[0]
    stage = Stage(make_rung_job(None, seed, cut), split.candidates[0], seed, "full", cut)
    reward = yield from search(run, space, first, stage)
    left, presets = best_trials(run.study), _single_parts(space)
    for rung in range(1, len(split.cuts) - 1):
        chosen = _promoted(left, split.candidates[rung], presets)
        _forget(run, left, chosen)
        left = yield from _later_rung(run, chosen, split.cuts[rung], seed, reward.parts, split.none_races)
    racers = _promoted(left, split.candidates[-1], presets)
    _forget(run, left, racers)
    if not racers:
        run.observer.say("no candidate finished with an active term, so there is no distiller to train in full")
        return None
    return (yield from _race(run, racers, split, seed))


def _later_rung(
    run: RunContext, candidates: Sequence[Finalist], cut: int, seed: int, parts: tuple[str, ...], with_none: bool
) -> Phases[list[Finalist]]:
    """Continue candidates to a cut; return those that reached it, best first."""
    jobs = {each.digest: make_rung_job(each.spec, seed, cut) for each in candidates}
    none = make_rung_job(None, seed, cut)
    wanted = [*([none] if with_none else []), *jobs.values()]
    outcomes = yield from run_jobs(run, f"{len(candidates)} candidates to epoch {cut}", wanted)
    reached = [each for each in candidates if _is_judged(outcomes[jobs[each.digest].id])]
    values = rung_values({each.digest: outcomes[jobs[each.digest].id] for each in reached}, parts)
    return sorted(reached, key=lambda each: -values[each.digest])


def rung_values(outcomes: Mapping[str, Outcome], parts: tuple[str, ...]) -> dict[str, float]:
    """Return the worth of each candidate at a cut: its metrics, signed, each divided by its spread over them, added.

    Args:
        outcomes: outcomes of the candidates, by digest.
        parts: metrics of ``proxy.reward``.
    """
    if not outcomes:
        return {}
    # The candidates are compared with each other alone, so that any of them may be the origin.
    origin = next(iter(outcomes.values()))
    epoch = origin.reports[-1].epoch
    plain = Reward(parts, {epoch: origin.metrics})
    gains = {digest: plain.gains(outcome.metrics, epoch) for digest, outcome in outcomes.items()}
    reward = plain.calibrated(list(gains.values())[1:])
    return {digest: reward.value(outcome.metrics, epoch) for digest, outcome in outcomes.items()}


def _race(run: RunContext, racers: Sequence[Finalist], split: BudgetSplit, seed: int) -> Phases[Finalist | None]:
    race = FullRace(racers, seed, none_races=split.none_races)
    outcomes = yield from run_jobs(run, f"race, seed {seed}", race.jobs(seed))
    race.finish_round(seed, outcomes)
    for count, further in zip(split.rounds, run.config.full.seeds, strict=False):
        race.keep_best(count)
        outcomes = yield from run_jobs(run, f"race, seed {further}", race.jobs(further))
        race.finish_round(further, outcomes)
    result = race.result()
    run.facts.set_race(result)
    run.observer.say(race_words(result))
    return race.winner()


def _promoted(ranked: Sequence[Finalist], count: int, presets: frozenset[str]) -> list[Finalist]:
    """Return the best, the best single preset always among them if there is room for two.

    A sum must beat the presets in full trainings, so one of them stands in every rung.
    """
    chosen = list(ranked[:count])
    if count > 1 and not any(each.digest in presets for each in chosen):
        chosen[-1:] = [next((each for each in ranked if each.digest in presets), chosen[-1])] if chosen else []
    return chosen


def _single_parts(space: AnySpace) -> frozenset[str]:
    """Return the digests of all single published parts at every strength."""
    if not isinstance(space, PartSpace):
        return frozenset()
    return frozenset(each.digest for each in space.single_presets())


def _is_judged(outcome: Outcome) -> bool:
    is_finite = all(math.isfinite(value) for value in outcome.metrics.values())
    return outcome.status == "finished" and not outcome.is_inactive and is_finite


def _forget(run: RunContext, candidates: Iterable[Finalist], promoted: Iterable[Finalist]) -> None:
    """Remove the checkpoints of candidates that are not promoted: those of all together may fill the disk."""
    lost = {each.digest for each in candidates} - {each.digest for each in promoted}
    for record in map(read_record, run.study.get_trials(deepcopy=False)):
        path = record.outcome.artifacts.get(CHECKPOINT_ARTIFACT) if record.outcome is not None else None
        if path and record.digest in lost:
            with contextlib.suppress(OSError):
                Path(path).unlink()


def _words(split: BudgetSplit) -> str:
    rungs = ", ".join(f"{count} to epoch {cut}" for count, cut in zip(split.candidates, split.cuts, strict=True))
    rounds = f", then {len(split.rounds)} more seeds of the race" if split.rounds else ""
    return f"budget: {split.cost:.1f} full trainings: candidates {rungs}{rounds}"


__all__ = ["rung_values", "search_phases", "split_of"]
