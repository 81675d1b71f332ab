"""What every worker process of Ray needs before its first job, whether Tune or Train has started it."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass

from ray import cloudpickle

from autokd.errors import AutoKDError
from autokd.outcomes import WorkerResources


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What an actor needs before its first job; the factory is pickled so that the environment is set first."""

    factory: bytes
    resources: WorkerResources
    working_directory: str
    import_paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FactoryFailure:
    """The factory raised: no job can ever run. ``pickled`` is the exception."""

    pickled: bytes


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
