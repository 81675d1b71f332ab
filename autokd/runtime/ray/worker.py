"""The Tune trainable: an actor that builds its evaluator once and runs job after job.

A step is one event: a report, the outcome, or, where the driver has no work for this actor, a moment of rest.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
import traceback
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from ray import cloudpickle, tune

from autokd.errors import AutoKDError
from autokd.outcomes import Evaluator, Job, Outcome, Report, WorkerResources
from autokd.runtime.containment import run_guarded, worker_name

IDLE_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a Tune trial is for: a job with its hard limit in seconds, or (None) keeping an actor at hand."""

    job: Job | None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """The factory raised: no job can ever run. ``pickled`` is the exception."""

    pickled: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """What a step gives: a report, an outcome, a broken factory, or None (idle)."""

    worker: str
    content: Report | Outcome | Broken | None


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What an actor needs before its first job; the factory is pickled so that the environment is set first."""

    factory: bytes
    resources: WorkerResources
    working_directory: str
    import_paths: tuple[str, ...]


class JobTrainable(tune.Trainable):
    """Runs one Assignment per Tune trial; the evaluator outlives trials through ``reset_config``."""

    def setup(self, config: dict[str, Any], worker: WorkerSetup | None = None) -> None:
        assert worker is not None, "given by tune.with_parameters"
        self._worker = worker
        self._evaluator: Evaluator | None = None
        self._training: Generator[Report, None, Outcome] | None = None
        self._assignment: Assignment = config["assignment"]
        prepare_process(worker)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._end_training()
        self._assignment = new_config["assignment"]
        return True

    def step(self) -> dict[str, Any]:
        return {"event": Event(worker_name(), self._advance())}

    def cleanup(self) -> None:
        self._end_training()

    def _advance(self) -> Report | Outcome | Broken | None:
        job, timeout_s = self._assignment.job, self._assignment.timeout_s
        if self._training is None and job is not None and timeout_s is not None:
            # A thread of C code: it ends this process even where Python itself hangs.
            faulthandler.dump_traceback_later(timeout_s, exit=True, file=sys.__stderr__ or 2)
        if self._evaluator is None:
            try:
                self._evaluator = cloudpickle.loads(self._worker.factory)(self._worker.resources)
            except Exception as error:  # noqa: BLE001 - carried to the driver, which raises it
                self._end_training()
                return Broken(pickled_error(error))
        if job is None:
            time.sleep(IDLE_STEP_S)
            return None
        if self._training is None:
            self._training = run_guarded(self._evaluator, job)
        try:
            return next(self._training)
        except StopIteration as end:
            self._end_training()
            outcome: Outcome = end.value
            return outcome

    def _end_training(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        training, self._training = self._training, None
        if training is not None:
            training.close()


def prepare_process(worker: WorkerSetup) -> None:
    """Threads, import paths and working directory as the driver's, before anything heavy is imported."""
    if worker.resources.num_threads:
        os.environ["OMP_NUM_THREADS"] = str(worker.resources.num_threads)
        os.environ["MKL_NUM_THREADS"] = str(worker.resources.num_threads)
    sys.path.extend(path for path in worker.import_paths if path not in sys.path and os.path.isdir(path))
    if os.path.isdir(worker.working_directory):
        os.chdir(worker.working_directory)


def pickled_error(error: Exception) -> bytes:
    """The exception itself where it can travel, else its text."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        data: bytes = cloudpickle.dumps(error)
        cloudpickle.loads(data)
    except Exception:  # noqa: BLE001 - exceptions with odd constructors do not survive pickling
        data = cloudpickle.dumps(AutoKDError(f"the evaluator could not be built in a worker:\n{trace}"))
    return data
