"""Jobs one after another in the driver's own process: for debugging, and where Ray is absent."""

from __future__ import annotations

import time
from collections.abc import Mapping

from autokd.outcomes import Evaluator, EvaluatorFactory, Job, Outcome, Report, WorkerResources
from autokd.runtime.containment import pruned, run_guarded, worker_name
from autokd.runtime.contract import Driver, Runtime, Wait

_POLL_S = 0.2


class InProcessRuntime(Runtime):
    """``workers: 0``. A job that hangs cannot be killed here: ``job_timeouts_s`` is not enforced."""

    def __init__(self, resources: WorkerResources | None = None) -> None:
        self.num_workers = 1
        self._resources = resources or WorkerResources(num_threads=0)
        self._built: tuple[EvaluatorFactory, Evaluator] | None = None

    def run(
        self,
        driver: Driver,
        factory: EvaluatorFactory,
        *,
        job_timeouts_s: Mapping[str, float | None] | None = None,
    ) -> None:
        while (job := driver.next_job()) is not None:
            if isinstance(job, Wait):
                # Nothing runs here that could change the driver's mind, but another driver on the same
                # database may.
                time.sleep(_POLL_S)
                continue
            driver.on_outcome(self._run_job(job, driver, self._evaluator(factory)))

    def close(self) -> None:
        self._built = None

    def _evaluator(self, factory: EvaluatorFactory) -> Evaluator:
        if self._built is None or self._built[0] is not factory:
            self._built = (factory, factory(self._resources))
        return self._built[1]

    def _run_job(self, job: Job, driver: Driver, evaluator: Evaluator) -> Outcome:
        training = run_guarded(evaluator, job)
        reports: list[Report] = []
        try:
            while True:
                try:
                    report = next(training)
                except StopIteration as end:
                    outcome: Outcome = end.value
                    return outcome
                reports.append(report)
                if not driver.on_report(report):
                    return pruned(job, reports, worker_name())
        finally:
            training.close()
