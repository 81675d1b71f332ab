"""The best few of a search, tried again with more seeds, so that the winner is not the luckiest trial."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from autokd.config import NO_DISTILLATION
from autokd.outcomes import Job, Outcome, lesson_digest
from autokd.spec import DistillerSpec
from autokd.storage import read_record
from autokd.study.reward import Reward, reference_curve

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Finalist:
    """A candidate with its rewards: the trial's own first, then one a further seed."""

    spec: DistillerSpec
    values: tuple[float, ...]
    promoted: str = ""
    """Digest of an earlier trial's student that taught too."""

    @property
    def digest(self) -> str:
        """What the student learns from: ``Job.digest``."""
        return lesson_digest(self.spec, self.promoted)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)


def best_trials(study: optuna.Study, count: int) -> list[Finalist]:
    """The best finished trials of distinct digest, each with its own value alone, best first."""
    trials = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if t.value is not None]
    best: dict[str, Finalist] = {}
    for trial in sorted(trials, key=lambda t: (-(t.value or 0.0), t.number)):
        record = read_record(trial)
        if record.spec is not None:
            best.setdefault(record.digest, Finalist(record.spec, (float(trial.value or 0.0),), record.promoted))
    return list(best.values())[:count]


def reference_job(seed: int) -> Job:
    """The proxy training without distillation, against which all of this seed are judged."""
    return Job(f"proxy-{NO_DISTILLATION}-s{seed}", None, "proxy", seed)


def finalist_job(finalist: Finalist, seed: int) -> Job:
    return Job(f"proxy-{finalist.digest}-s{seed}", finalist.spec, "proxy", seed, finalist.promoted)


def finalist_jobs(best: Sequence[Finalist], seeds: Sequence[int]) -> list[Job]:
    """For each seed "none" first, then every candidate."""
    return [job for seed in seeds for job in (reference_job(seed), *(finalist_job(each, seed) for each in best))]


def rank_finalists(
    best: Sequence[Finalist],
    outcomes: Mapping[str, Outcome],
    seeds: Sequence[int],
    reward: Reward,
    num_epochs: int,
) -> list[Finalist]:
    """Order by the mean reward over seeds. A seed whose "none" failed has no say; a failed candidate falls behind."""
    finalists = []
    for candidate in best:
        values, has_failed = list(candidate.values), False
        for seed in seeds:
            none = outcomes[reference_job(seed).id]
            if none.status != "finished":
                continue
            outcome = outcomes[finalist_job(candidate, seed).id]
            has_failed |= outcome.status != "finished"
            if outcome.status == "finished":
                seeded = Reward(reward.parts, reference_curve(none), reward.scales)
                values.append(seeded.value(outcome.metrics, num_epochs))
        finalists.append((has_failed, replace(candidate, values=tuple(values))))
    return [finalist for _, finalist in sorted(finalists, key=lambda pair: (pair[0], -pair[1].mean))]
