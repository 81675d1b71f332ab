"""The Tune trainable: an actor that builds its evaluator once and runs job after job.

A step returns one event: a report, the outcome or, if the driver has no job for it, None after a short sleep.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from ray import cloudpickle, tune

from autokd.jobs import Evaluator, Job, JobPreempted, Outcome, Report
from autokd.runtime.containment import run_guarded, stop, worker_name
from autokd.runtime.ray.worker_process import FactoryFailure, WorkerSetup, pickled_error, prepare_process

IDLE_STEP_S = 0.1
"""Seconds of an idle step: a new job waits for its end, and shorter steps would load the driver's event loop."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Content of a Tune trial.

    Attributes:
        job: the job; None: an idle trial, which keeps an actor alive.
        timeout_s: hard limit in seconds, after which the worker kills itself.
    """

    job: Job | None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Preempted:
    """The worker was asked to end (SIGTERM); its job has saved its state, and its next step raises."""


@dataclass(frozen=True, slots=True)
class Event:
    """Result of a step.

    Attributes:
        worker: name of the worker process.
        content: a report, an outcome, the failure of the factory, the last word of a worker that was asked to end, or
            None of an idle trial.
    """

    worker: str
    content: Report | Outcome | FactoryFailure | Preempted | None


class WorkerPreempted(Exception):
    """Ends an actor that was asked to end, after the event that says so."""


class JobTrainable(tune.Trainable):
    """An actor of Ray Tune; one trial of Tune is one ``Assignment``."""

    def setup(self, config: dict[str, Any], worker: WorkerSetup | None = None) -> None:
        """Prepare the process; the evaluator is built at the first step, whose result can carry its failure."""
        assert worker is not None, "given by tune.with_parameters"
        self._worker = worker
        self._evaluator: Evaluator | None = None
        self._training: Generator[Report, None, Outcome] | None = None
        self._is_preempted = False
        self._assignment: Assignment = config["assignment"]
        prepare_process(worker)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial. Returning True makes Tune reuse this actor, and the evaluator outlives the trial."""
        self._end_training()
        self._assignment = new_config["assignment"]
        return True

    def step(self) -> dict[str, Any]:
        """Advance the job to its next event."""
        return {"event": Event(worker_name(), self._advance())}

    def cleanup(self) -> None:
        """Stop the training of a trial that Tune stops."""
        self._end_training()

    def _advance(self) -> Report | Outcome | FactoryFailure | Preempted | None:
        if self._is_preempted:
            # An exception ends this actor: a process that was asked to end must get no other job.
            raise WorkerPreempted
        job, timeout_s = self._assignment.job, self._assignment.timeout_s
        if self._evaluator is None:
            try:
                self._evaluator = cloudpickle.loads(self._worker.factory)(self._worker.resources)
            except Exception as error:  # noqa: BLE001 - carried to the driver, which raises it
                self._end_training()
                return FactoryFailure(pickled_error(error))
        if job is None:
            time.sleep(IDLE_STEP_S)
            return None
        # Armed after the evaluator is built, whose imports and data are no part of the job.
        if self._training is None and timeout_s is not None:
            # A thread of C code: it ends this process even if Python hangs in a C extension, or holds the lock of the
            # interpreter. The driver then sees a lost worker. __stderr__ or 2: the dump needs a file descriptor, which
            # a replaced sys.stderr may lack.
            faulthandler.dump_traceback_later(timeout_s, exit=True, file=sys.__stderr__ or 2)
        if self._training is None:
            self._training = run_guarded(self._evaluator, job)
        try:
            return next(self._training)
        except StopIteration as end:
            outcome: Outcome = end.value
        except JobPreempted:
            self._is_preempted = True
            return Preempted()
        self._end_training()
        return outcome

    def _end_training(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        training, self._training = self._training, None
        if training is not None:
            stop(training)
