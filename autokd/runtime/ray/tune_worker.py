"""The Tune trainable: an actor that builds its evaluator once and runs job after job.

A step is one event: a report, the outcome, or, where the driver has no work for this actor, a moment of rest.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from ray import cloudpickle, tune

from autokd.outcomes import Evaluator, Job, Outcome, Report
from autokd.runtime.containment import contained, worker_name
from autokd.runtime.ray.worker_process import FactoryFailure, WorkerSetup, pickled_error, prepare_process

IDLE_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a Tune trial is for: a job with its hard limit in seconds, or (None) keeping an actor at hand."""

    job: Job | None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What a step gives: a report, an outcome, a broken factory, or None (idle)."""

    worker: str
    content: Report | Outcome | FactoryFailure | None


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

    def _advance(self) -> Report | Outcome | FactoryFailure | None:
        job, timeout_s = self._assignment.job, self._assignment.timeout_s
        if self._training is None and job is not None and timeout_s is not None:
            # A thread of C code: it ends this process even where Python itself hangs.
            faulthandler.dump_traceback_later(timeout_s, exit=True, file=sys.__stderr__ or 2)
        if self._evaluator is None:
            try:
                self._evaluator = cloudpickle.loads(self._worker.factory)(self._worker.resources)
            except Exception as error:  # noqa: BLE001 - carried to the driver, which raises it
                self._end_training()
                return FactoryFailure(pickled_error(error))
        if job is None:
            time.sleep(IDLE_STEP_S)
            return None
        if self._training is None:
            self._training = contained(self._evaluator, job)
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
