"""Guarded jobs: whatever an evaluator raises ends as an outcome with a named cause.

This module alone names failures, and alone catches every exception. What a cause means is in ``autokd.jobs``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import time
import traceback
from collections.abc import Generator
from dataclasses import replace

from autokd.errors import DetectorError, DistillError, NonFiniteError, SpecError
from autokd.jobs import Cause, Evaluator, Job, JobFailed, JobStopped, Outcome, Report

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 2000
_OUT_OF_MEMORY_PHRASES = ("out of memory", "can't allocate memory", "not enough memory")
"""Words of torch's allocators on a CPU, which raise a plain RuntimeError."""


def worker_name() -> str:
    """Return host and process, which identify a worker."""
    return f"{platform.node()}:{os.getpid()}"


def run_guarded(evaluator: Evaluator, job: Job) -> Generator[Report, None, Outcome]:
    """Run a job; exceptions become failed outcomes.

    Args:
        evaluator: runs the job.
        job: the job.

    Yields:
        The evaluator's reports, with the job's id and plain numbers. Closing the generator closes the evaluator's;
        ``stop`` ends a pruned job.

    Returns:
        The outcome, finished or failed, with all reports, the seconds taken, and the worker's name. A failed one has
        the metrics of the last report, or those that ``JobFailed`` carries.

    Raises:
        KeyboardInterrupt: after the evaluator's generator is closed; ``JobPreempted`` is one.
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
            try:
                yield report
            except JobStopped as stopped:
                _throw(training, stopped, job)
                raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a job must never end its worker
        outcome = failure(job, error)
    finally:
        # Also if this generator is closed or interrupted: the training's hooks and threads must end now, and not when
        # the garbage collector finds them.
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
    """Return the outcome of a job that its driver stopped after ``reports``."""
    last = reports[-1]
    return Outcome(job.id, "pruned", metrics=last.metrics, reports=tuple(reports), seconds=last.seconds, worker=worker)


def failure(job: Job, error: BaseException) -> Outcome:
    """Return the failed outcome of an exception, still without reports and seconds."""
    metrics, artifacts = {}, {}
    if isinstance(error, JobFailed) and error.__cause__ is not None:
        metrics, artifacts = _plain(error.metrics), dict(error.artifacts)
        error = error.__cause__
    cause = cause_of(error)
    return Outcome(job.id, "failed", metrics, cause, _message(cause, error), artifacts=artifacts)


def cause_of(error: BaseException) -> Cause:
    """Return the cause of an exception."""
    if isinstance(error, NonFiniteError):
        return "non_finite"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, (DistillError, SpecError, DetectorError)):
        return "cannot_build"
    if _is_out_of_memory(error):
        return "out_of_memory"
    return "error"


def _is_out_of_memory(error: BaseException) -> bool:
    # torch's own class is recognized by its name, since a runtime must not import torch: the driver need not have it.
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY_PHRASES)


def _message(cause: Cause, error: BaseException) -> str:
    """Return the error's message; of a bug, the innermost part of its traceback."""
    if cause == "error":
        return shortened("".join(traceback.format_exception(type(error), error, error.__traceback__)).strip())
    text = str(error)
    if cause == "out_of_memory":
        # The further lines are torch's advice about its own settings.
        text = next(iter(text.splitlines()), "")
    return shortened(text or type(error).__name__)


def shortened(text: str) -> str:
    """Return the last 2,000 characters of ``text``: a traceback names the error at its end."""
    return text if len(text) <= _MAX_MESSAGE else "... " + text[-_MAX_MESSAGE:]


def _checked(outcome: object, job: Job) -> Outcome:
    if not isinstance(outcome, Outcome):
        raise TypeError(f"evaluate() returned {outcome!r} for job {job.id}; an Outcome ends a job.")
    return replace(outcome, job_id=job.id, metrics=_plain(outcome.metrics))


def _checked_report(report: Report, job: Job, elapsed_s: float) -> Report:
    return Report(job.id, int(report.epoch), _plain(report.metrics), report.seconds or elapsed_s)


def _plain(metrics: object) -> dict[str, float]:
    """Return metrics as Python floats, which travel and are stored without torch."""
    return {str(name): float(value) for name, value in dict(metrics).items()}  # type: ignore[call-overload]


def stop(training: Generator[Report, None, Outcome]) -> None:
    """Stop a job for good, as its driver asks at a report, and close its generator.

    Args:
        training: what ``run_guarded`` returned.
    """
    with contextlib.suppress(JobStopped, StopIteration):
        training.throw(JobStopped())
    training.close()


def _throw(training: Generator[Report, None, Outcome], stopped: JobStopped, job: Job) -> None:
    try:
        training.throw(stopped)
    except (JobStopped, StopIteration):
        pass
    except (Exception, SystemExit):
        logger.warning("job %s: stopping its training raised an exception", job.id, exc_info=True)


def _close(training: Generator[Report, None, Outcome], job: Job) -> None:
    try:
        training.close()
    except (Exception, SystemExit):
        logger.warning("job %s: stopping its training raised an exception", job.id, exc_info=True)
