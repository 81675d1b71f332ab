"""The best few of a search, which are tried again with more seeds, so that the winner is not the luckiest trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from autokd.outcomes import Job, job_digest, make_job
from autokd.spec import DistillerSpec
from autokd.storage import read_record

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Finalist:
    """A candidate with the reward of its trial."""

    spec: DistillerSpec
    value: float
    promoted: str = ""
    """Digest of an earlier trial's student that taught too."""

    @property
    def digest(self) -> str:
        """What the student learns from: ``Job.digest``."""
        return job_digest(self.spec, self.promoted)


def best_trials(study: optuna.Study, count: int | None = None) -> list[Finalist]:
    """The best finished trials of distinct digest, best first; None: all of them."""
    trials = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if t.value is not None]
    best: dict[str, Finalist] = {}
    for trial in sorted(trials, key=lambda t: (-(t.value or 0.0), t.number)):
        record = read_record(trial)
        if record.spec is not None:
            best.setdefault(record.digest, Finalist(record.spec, float(trial.value or 0.0), record.promoted))
    return list(best.values())[:count]


def reference_job(seed: int) -> Job:
    """The proxy training without distillation, against which all of this seed are judged."""
    return make_job(None, "proxy", seed)


def finalist_job(finalist: Finalist, seed: int) -> Job:
    return make_job(finalist.spec, "proxy", seed, finalist.promoted)


def full_finalist_job(finalist: Finalist, seed: int) -> Job:
    return make_job(finalist.spec, "full", seed, finalist.promoted)


def full_finalist_seed(seeds: Sequence[int]) -> int:
    """The least that is none of ``full.seeds``: the training by which a finalist is chosen is a lucky one, and must
    not be among those that tell what it is worth."""
    return min(set(range(len(seeds) + 1)) - set(seeds))


def finalist_jobs(best: Sequence[Finalist], seeds: Sequence[int]) -> list[Job]:
    """For each seed "none" first, then every candidate."""
    return [job for seed in seeds for job in (reference_job(seed), *(finalist_job(each, seed) for each in best))]
