"""Jobs one after another in the driver's own process: for debugging, and without Ray."""

from __future__ import annotations

import time
from collections.abc import Mapping

from autokd.jobs import Evaluator, EvaluatorFactory, Job, Outcome, Report, WorkerResources
from autokd.runtime.containment import pruned, run_guarded, stop, worker_name
from autokd.runtime.contract import Driver, Runtime, Wait

_POLL_S = 0.2
"""Seconds between two questions to a driver that waits."""


class InProcessRuntime(Runtime):
    """The runtime of ``workers: 0``.

    A job that hangs cannot be killed in its own process, so ``job_timeouts_s`` is not enforced.

    Args:
        resources: cores and card of this process; None: a CPU with torch's default number of threads.
    """

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
                # No job runs here whose outcome could end the waiting, but another driver on the same database
                # may end it.
                time.sleep(_POLL_S)
                continue
            driver.on_outcome(self._run_job(job, driver, self._evaluator(factory)))

    def close(self) -> None:
        """Drop the evaluator, and with it the data and teachers that it holds in memory."""
        self._built = None

    def _evaluator(self, factory: EvaluatorFactory) -> Evaluator:
        # Kept from run to run: a study calls ``run`` once a phase, and an evaluator costs the loading of all data.
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
                    stop(training)
                    return pruned(job, reports, worker_name())
        finally:
            training.close()  # an exception of the driver leaves a training in the middle
