"""Drivers that lead a runtime through fixed lists of jobs, and through several drivers one after another."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Generic, TypeVar

from autokd.jobs import Job, Outcome, Report
from autokd.runtime import WAIT, Driver, Wait
from autokd.study.full_disk import refuse_full_disk
from autokd.study.observer import Observer

ResultT = TypeVar("ResultT")

# A run's phases depend on each other's results: the finalists are known after the search, the full trainings after the
# race. The plain way would be one ``runtime.run(driver)`` a phase. But a runtime starts its workers on entry and ends
# them when the driver has no more jobs, and a worker is expensive: it has imported torch, mapped the cached teacher
# features into memory, built the student, and under Ray waited for its place in the cluster. So workers must outlive
# the phases and keep what they have loaded. A generator allows that without turning the phases inside out: a phase is
# ordinary code that yields a driver, is suspended until all of that driver's jobs have ended, and reads their results
# in its next line. ``PhasedDriver`` shows the runtime one driver that does not run out between two phases, and no phase
# knows that it is suspended. The value that a phase returns arrives at ``yield from``, that of the whole run in
# ``PhasedDriver.result``.
Phases = Generator[Driver, None, ResultT]
"""Generator of drivers; each is resumed when the jobs of the driver that it yielded have ended."""


class PhasedDriver(Generic[ResultT]):
    """One driver for all phases of a run; workers wait between two phases and keep what they have loaded.

    Args:
        phases: generator of the phases' drivers. It is advanced to its first driver at once.
    """

    def __init__(self, phases: Phases[ResultT]) -> None:
        self._phases = phases
        self._in_flight: set[str] = set()
        self._current: Driver | None = None
        self.result: ResultT | None = None
        """Return value of ``phases``, once ``is_done``."""
        self.is_done = False
        self._advance()

    def next_job(self) -> Job | Wait | None:
        """Return a job of the current phase, WAIT while its last jobs run, or None after the last phase."""
        while self._current is not None:
            job = self._current.next_job()
            if isinstance(job, Job):
                self._in_flight.add(job.id)
                return job
            # The next phase reads the results of this one, so it may not begin before the last outcome.
            if isinstance(job, Wait) or self._in_flight:
                return WAIT
            self._advance()
        return None

    def on_report(self, report: Report) -> bool:
        """Pass a report to the current phase.

        Args:
            report: metrics of a job of the current phase.

        Returns:
            False if the phase stops the job.
        """
        assert self._current is not None
        return self._current.on_report(report)

    def on_outcome(self, outcome: Outcome) -> None:
        """Pass an outcome to the current phase.

        Args:
            outcome: outcome of a job of the current phase.
        """
        assert self._current is not None
        self._in_flight.discard(outcome.job_id)
        self._current.on_outcome(outcome)

    def _advance(self) -> None:
        try:
            self._current = next(self._phases)
        except StopIteration as end:
            self._current, self.result, self.is_done = None, end.value, True


class BatchDriver:
    """Driver of a fixed list of jobs; outcomes known from an earlier process are not computed again.

    Args:
        name: name of the stage, for the observer.
        jobs: jobs in the order in which they are handed out; equal ids are run once.
        known: outcomes that are known already, by job id.
        on_done: called with each new outcome as it comes, to store it.
        observer: receiver of progress.
    """

    def __init__(
        self, name: str, jobs: Iterable[Job], known: Mapping[str, Outcome], on_done: Callable[[Outcome], None],
        observer: Observer,
    ) -> None:  # fmt: skip
        wanted = {job.id: job for job in jobs}
        self.outcomes = {job_id: known[job_id] for job_id in wanted if job_id in known}
        """Outcomes so far, by job id."""
        self._waiting = [job for job_id, job in wanted.items() if job_id not in known]
        self._total = len(wanted)
        self._name = name
        self._on_done = on_done
        self._observer = observer

    @property
    def is_missing_any(self) -> bool:
        """Whether a job is left to hand out."""
        return bool(self._waiting)

    def next_job(self) -> Job | None:
        """Return the next job, or None after the last."""
        return self._waiting.pop(0) if self._waiting else None

    def on_report(self, report: Report) -> bool:
        """Return True: every job runs to its end.

        Args:
            report: not used.
        """
        return True

    def on_outcome(self, outcome: Outcome) -> None:
        """Store an outcome and announce the progress.

        Args:
            outcome: outcome of one of the jobs.
        """
        refuse_full_disk(outcome)
        self.outcomes[outcome.job_id] = outcome
        self._on_done(outcome)
        self._observer.stage(self._name, len(self.outcomes), self._total)
