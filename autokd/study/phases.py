"""One driver for all phases of a run, so that workers start once and keep what they have loaded."""

from __future__ import annotations

from collections.abc import Generator
from typing import Generic, TypeVar

from autokd.outcomes import Job, Outcome, Report
from autokd.runtime import WAIT, Driver, Wait

ResultT = TypeVar("ResultT")

Phases = Generator[Driver, None, ResultT]
"""Yields one driver after another; each next one is made when the jobs of the one before have all ended."""


class PhasedDriver(Generic[ResultT]):
    """Leads a runtime through the drivers of ``phases``; between two of them workers wait, they do not end."""

    def __init__(self, phases: Phases[ResultT]) -> None:
        self._phases = phases
        self._in_flight: set[str] = set()
        self._current: Driver | None = None
        self.result: ResultT | None = None
        self.is_done = False
        self._advance()

    def next_job(self) -> Job | Wait | None:
        while self._current is not None:
            job = self._current.next_job()
            if isinstance(job, Job):
                self._in_flight.add(job.id)
                return job
            if isinstance(job, Wait) or self._in_flight:
                return WAIT
            self._advance()
        return None

    def on_report(self, report: Report) -> bool:
        assert self._current is not None
        return self._current.on_report(report)

    def on_outcome(self, outcome: Outcome) -> None:
        assert self._current is not None
        self._in_flight.discard(outcome.job_id)
        self._current.on_outcome(outcome)

    def close(self) -> None:
        """End the phases where they stand (an interrupted run)."""
        self._phases.close()

    def _advance(self) -> None:
        try:
            self._current = next(self._phases)
        except StopIteration as end:
            self._current, self.result, self.is_done = None, end.value, True
