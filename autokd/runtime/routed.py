"""Two runtimes as one: full trainings on one of them, all other jobs on the other."""

from __future__ import annotations

from collections.abc import Mapping

from autokd.jobs import EvaluatorFactory, Job, Outcome, Report
from autokd.runtime.contract import WAIT, Driver, Runtime, Wait


class RoutedRuntime(Runtime):
    """Routes each job to a runtime by its recipe.

    The two runtimes take turns and never run at once, so that either may use the whole machine: a full training that
    several processes share needs the cores that proxy trainings would occupy.

    Args:
        proxies: runtime of every job that is no full training; its number of workers is this runtime's.
        full: runtime of full trainings.
    """

    def __init__(self, proxies: Runtime, full: Runtime) -> None:
        self.num_workers = proxies.num_workers
        self._proxies, self._full = proxies, full

    def __enter__(self) -> RoutedRuntime:
        self._full.__enter__()
        try:
            self._proxies.__enter__()
        except BaseException:
            self._full.close()
            raise
        return self

    def close(self) -> None:
        """Close both runtimes, the second one even if the first raises."""
        try:
            self._proxies.close()
        finally:
            self._full.close()

    def run(
        self,
        driver: Driver,
        factory: EvaluatorFactory,
        *,
        job_timeouts_s: Mapping[str, float | None] | None = None,
    ) -> None:
        router = _Router(driver)
        while router.switch():
            runtime = self._full if router.serves_full else self._proxies
            runtime.run(router, factory, job_timeouts_s=job_timeouts_s)


class _Router:
    """A driver that offers one runtime the jobs of its kind.

    At a job of the other kind it says "no more" to the runtime once the jobs in flight have ended, so that ``run``
    returns and the other runtime takes its turn. It holds that job meanwhile: a driver hands a job out once.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._held: Job | None = None
        self._num_in_flight = 0
        self._is_exhausted = False
        self.serves_full = False

    def switch(self) -> bool:
        """Choose the kind of the next job; False if there are no more jobs."""
        if self._held is None and not self._is_exhausted:
            self._fetch()
        # If the driver waits, no job is held, and the runtime of the last turn goes on asking it.
        if self._held is not None:
            self.serves_full = self._held.recipe == "full"
        return not self._is_exhausted

    def next_job(self) -> Job | Wait | None:
        if self._held is None and not self._is_exhausted:
            self._fetch()
        job = self._held
        if job is not None and (job.recipe == "full") == self.serves_full:
            self._held = None
            self._num_in_flight += 1
            return job
        if job is not None:
            # The turn is over once the jobs in flight have ended.
            return WAIT if self._num_in_flight else None
        return None if self._is_exhausted else WAIT

    def on_report(self, report: Report) -> bool:
        return self._driver.on_report(report)

    def on_outcome(self, outcome: Outcome) -> None:
        self._num_in_flight -= 1
        self._driver.on_outcome(outcome)

    def _fetch(self) -> None:
        job = self._driver.next_job()
        if job is None:
            self._is_exhausted = True
        elif isinstance(job, Job):
            self._held = job
