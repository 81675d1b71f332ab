"""The best trials of a search. They are trained again with more seeds, so that the winner is not the luckiest trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from autokd.jobs import Job, job_digest, make_job
from autokd.spec import DistillerSpec
from autokd.storage import read_record

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Finalist:
    """A distiller with the reward of its trial.

    Args:
        spec: the distiller.
        value: reward of its trial.
        promoted: digest of an earlier trial's student that taught too; empty: none did.
    """

    spec: DistillerSpec
    value: float
    promoted: str = ""

    @property
    def digest(self) -> str:
        """Digest of what the student learns from: ``Job.digest``."""
        return job_digest(self.spec, self.promoted)


def best_trials(study: optuna.Study, count: int | None = None) -> list[Finalist]:
    """Return the best finished trials of distinct digest, best first.

    A trial whose every term was inactive is none of them: it trained without distillation.

    Args:
        study: study of the search.
        count: number of trials; None: all.
    """
    trials = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if t.value is not None]
    best: dict[str, Finalist] = {}
    for trial in sorted(trials, key=lambda t: (-(t.value or 0.0), t.number)):
        record = read_record(trial)
        is_inactive = record.outcome is not None and record.outcome.is_inactive
        if record.spec is not None and not is_inactive:
            best.setdefault(record.digest, Finalist(record.spec, float(trial.value or 0.0), record.promoted))
    return list(best.values())[:count]


def reference_job(seed: int) -> Job:
    """Return the proxy training without distillation, the reference of all trainings of its seed.

    Args:
        seed: training seed.
    """
    return make_job(None, "proxy", seed)


def finalist_job(finalist: Finalist, seed: int) -> Job:
    """Return a proxy training of a finalist.

    Args:
        finalist: the finalist.
        seed: training seed.
    """
    return make_job(finalist.spec, "proxy", seed, finalist.promoted)


def full_finalist_job(finalist: Finalist, seed: int) -> Job:
    """Return a full training of a finalist.

    Args:
        finalist: the finalist.
        seed: training seed.
    """
    return make_job(finalist.spec, "full", seed, finalist.promoted)


def full_finalist_seed(seeds: Sequence[int]) -> int:
    """Return the seed of the finalists' full trainings: the least that is not among the reported seeds.

    The training by which a finalist is chosen is biased upwards, so it must not be among those that are reported.

    Args:
        seeds: ``full.seeds``.
    """
    return min(set(range(len(seeds) + 1)) - set(seeds))


def finalist_jobs(best: Sequence[Finalist], seeds: Sequence[int]) -> list[Job]:
    """Return the proxy trainings of a round: for each seed "none" first, then every finalist.

    Args:
        best: finalists.
        seeds: training seeds.
    """
    return [job for seed in seeds for job in (reference_job(seed), *(finalist_job(each, seed) for each in best))]
