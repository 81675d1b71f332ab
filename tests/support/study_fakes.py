"""A study without trainings: an evaluator whose metrics are a function of the spec."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import optuna

from autokd.config import load_space
from autokd.jobs import Job, Outcome, Report, WorkerResources
from autokd.runtime import InProcessRuntime
from autokd.study import Observer, Reward, SearchDriver, SearchPlan, SilentObserver

NONE = {1: {"val_loss": 2.0, "cka": 0.3}, 2: {"val_loss": 1.0, "cka": 0.5}}
SPACE = """
space:
  terms: 1
  sources: [feature_map, foreground, background]
  transforms: {normalize: [none, standardize]}
  distances: [l1, l2, smooth_l1]
  gradient_ratio: [10, 40]
"""


def quality(job: Job) -> float:
    """Some order of specs, fixed by their digests."""
    return int(job.spec.digest[:4], 16) / 65536 if job.spec is not None else 0.0


@dataclass
class FakeEvaluator:
    """Two epochs a job; ``fail`` may return an outcome instead."""

    fail: Callable[[Job], Outcome | None] = lambda job: None
    jobs: list[Job] = field(default_factory=list)

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        self.jobs.append(job)
        if (failure := self.fail(job)) is not None:
            return failure
        reports = []
        for epoch, none in NONE.items():
            gain = quality(job) * epoch / 2
            metrics = {"val_loss": none["val_loss"] - gain, "cka": none["cka"] + 0.1 * gain}
            reports.append(Report(job.id, epoch, metrics, seconds=0.1 * epoch))
            yield reports[-1]
        return Outcome(job.id, "finished", reports[-1].metrics, reports=tuple(reports), seconds=0.2)


def make_driver(
    study: optuna.Study,
    *,
    trials: int,
    calibration: int = 3,
    scales: dict | None = None,
    observer: Observer | None = None,
    owner: str = "me",
) -> SearchDriver:
    reward = Reward(("val_loss", "cka"), NONE, scales)
    plan = SearchPlan(trials, calibration, 2, 0)
    return SearchDriver(study, load_space(SPACE), reward, plan, observer or SilentObserver(), owner)


def run(driver: SearchDriver, evaluator: FakeEvaluator) -> None:
    with InProcessRuntime(WorkerResources()) as runtime:
        runtime.run(driver, lambda resources: evaluator)
    driver.finish()
