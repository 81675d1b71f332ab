"""A fixed list of jobs as a driver; outcomes known from an earlier run are not computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from autokd.outcomes import Job, Outcome, Report
from autokd.study.observer import Observer


class BatchDriver:
    """Hands out ``jobs`` in order; ``on_done`` is called with each outcome as it comes, to store it."""

    def __init__(
        self, name: str, jobs: Iterable[Job], known: Mapping[str, Outcome], on_done: Callable[[Outcome], None],
        observer: Observer,
    ) -> None:  # fmt: skip
        wanted = {job.id: job for job in jobs}
        self.outcomes = {job_id: known[job_id] for job_id in wanted if job_id in known}
        self._waiting = [job for job_id, job in wanted.items() if job_id not in known]
        self._total = len(wanted)
        self._name = name
        self._on_done = on_done
        self._observer = observer

    def next_job(self) -> Job | None:
        return self._waiting.pop(0) if self._waiting else None

    def on_report(self, report: Report) -> bool:
        return True

    def on_outcome(self, outcome: Outcome) -> None:
        self.outcomes[outcome.job_id] = outcome
        self._on_done(outcome)
        self._observer.stage(self._name, len(self.outcomes), self._total)

    @property
    def is_missing_any(self) -> bool:
        return bool(self._waiting)
