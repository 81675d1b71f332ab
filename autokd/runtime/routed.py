"""Two runtimes as one: full trainings go to the one that shares a training, all other jobs to the one that searches."""

from __future__ import annotations

from collections.abc import Mapping

from autokd.outcomes import EvaluatorFactory, Job, Outcome, Report
from autokd.runtime.contract import WAIT, Driver, Runtime, Wait


class RoutedRuntime(Runtime):
    """One of the two runs at a time, so that either may have the whole machine."""

    def __init__(self, searching: Runtime, training: Runtime) -> None:
        self.num_workers = searching.num_workers
        self._searching, self._training = searching, training

    def __enter__(self) -> RoutedRuntime:
        self._training.__enter__()
        try:
            self._searching.__enter__()
        except BaseException:
            self._training.close()
            raise
        return self

    def close(self) -> None:
        try:
            self._searching.close()
        finally:
            self._training.close()

    def run(
        self,
        driver: Driver,
        factory: EvaluatorFactory,
        *,
        job_timeouts_s: Mapping[str, float | None] | None = None,
    ) -> None:
        router = _Router(driver)
        while router.turn():
            runtime = self._training if router.serves_full else self._searching
            runtime.run(router, factory, job_timeouts_s=job_timeouts_s)


class _Router:
    """Gives a runtime the jobs of its kind; at one of the other kind it lets those in flight end, and stops."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._held: Job | None = None
        self._num_in_flight = 0
        self._is_exhausted = False
        self.serves_full = False

    def turn(self) -> bool:
        """Find out which kind is next; False: there are no more jobs ever."""
        if self._held is None and not self._is_exhausted:
            self._ask()
        if self._held is not None:
            self.serves_full = self._held.recipe == "full"
        return not self._is_exhausted

    def next_job(self) -> Job | Wait | None:
        if self._held is None and not self._is_exhausted:
            self._ask()
        job = self._held
        if job is not None and (job.recipe == "full") == self.serves_full:
            self._held = None
            self._num_in_flight += 1
            return job
        if job is not None:
            return WAIT if self._num_in_flight else None
        return None if self._is_exhausted else WAIT

    def on_report(self, report: Report) -> bool:
        return self._driver.on_report(report)

    def on_outcome(self, outcome: Outcome) -> None:
        self._num_in_flight -= 1
        self._driver.on_outcome(outcome)

    def _ask(self) -> None:
        job = self._driver.next_job()
        if job is None:
            self._is_exhausted = True
        elif isinstance(job, Job):
            self._held = job
