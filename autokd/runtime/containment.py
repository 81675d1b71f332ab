"""One job, contained: whatever its evaluator raises ends as an outcome with a named cause.

This is the one place of AutoKD that catches every exception.
"""

from __future__ import annotations

import logging
import os
import platform
import time
import traceback
from collections.abc import Generator
from dataclasses import replace

from autokd.errors import DetectorError, DistillError, NonFiniteError, SpecError
from autokd.outcomes import Cause, Evaluator, Job, Outcome, Report

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 2000
_OUT_OF_MEMORY_PHRASES = ("out of memory", "can't allocate memory", "not enough memory")


def worker_name() -> str:
    """Host and process, which tell workers apart."""
    return f"{platform.node()}:{os.getpid()}"


def contained(evaluator: Evaluator, job: Job) -> Generator[Report, None, Outcome]:
    """Iterate ``evaluator.evaluate(job)``; escaped exceptions become failed outcomes.

    Closing the generator (a pruned job) closes the evaluator's. KeyboardInterrupt passes through, after
    closing it as well. The outcome carries all reports, the seconds taken and the worker's name.
    """
    began_s = time.monotonic()
    reports: list[Report] = []
    training: Generator[Report, None, Outcome] | None = None
    outcome: Outcome
    try:
        training = evaluator.evaluate(job)
        while True:
            try:
                report = next(training)
            except StopIteration as end:
                outcome = _checked(end.value, job)
                break
            report = _checked_report(report, job, time.monotonic() - began_s)
            reports.append(report)
            yield report
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a trial is contained here
        outcome = failure(job, error)
    finally:
        if training is not None:
            _close(training, job)
    return replace(
        outcome,
        reports=outcome.reports or tuple(reports),
        metrics=outcome.metrics or (reports[-1].metrics if reports else {}),
        seconds=outcome.seconds or time.monotonic() - began_s,
        worker=outcome.worker or worker_name(),
    )


def pruned(job: Job, reports: list[Report], worker: str = "") -> Outcome:
    """The outcome of a job that its driver stopped after ``reports``."""
    last = reports[-1]
    return Outcome(job.id, "pruned", metrics=last.metrics, reports=tuple(reports), seconds=last.seconds, worker=worker)


def failure(job: Job, error: BaseException) -> Outcome:
    """The failed outcome that ``error`` means, before reports and seconds are added."""
    cause = cause_of(error)
    return Outcome(job.id, "failed", cause=cause, message=_message(cause, error))


def cause_of(error: BaseException) -> Cause:
    """The named cause of an exception. torch's own are known by name, so that torch need not be imported."""
    if isinstance(error, NonFiniteError):
        return "non_finite"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, (DistillError, SpecError, DetectorError)):
        return "cannot_build"
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return "out_of_memory"
    if isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY_PHRASES):
        return "out_of_memory"
    return "error"


def _message(cause: Cause, error: BaseException) -> str:
    """What went wrong; for a bug the innermost part of its traceback, where the reason stands."""
    if cause != "error":
        return shortened(str(error) or type(error).__name__)
    return shortened("".join(traceback.format_exception(type(error), error, error.__traceback__)).strip())


def shortened(text: str) -> str:
    """The last 2,000 characters of ``text``."""
    return text if len(text) <= _MAX_MESSAGE else "... " + text[-_MAX_MESSAGE:]


def _checked(outcome: object, job: Job) -> Outcome:
    if not isinstance(outcome, Outcome):
        raise TypeError(f"evaluate() returned {outcome!r} for job {job.id}; an Outcome ends a job.")
    return replace(outcome, job_id=job.id, metrics=_plain(outcome.metrics))


def _checked_report(report: Report, job: Job, elapsed_s: float) -> Report:
    return Report(job.id, int(report.epoch), _plain(report.metrics), report.seconds or elapsed_s)


def _plain(metrics: object) -> dict[str, float]:
    """Metrics as Python floats, so that they travel and are stored without torch."""
    return {str(name): float(value) for name, value in dict(metrics).items()}  # type: ignore[call-overload]


def _close(training: Generator[Report, None, Outcome], job: Job) -> None:
    try:
        training.close()
    except (Exception, SystemExit):
        logger.warning("job %s: stopping its training raised an exception", job.id, exc_info=True)
