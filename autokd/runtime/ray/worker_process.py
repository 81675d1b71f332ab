"""Setup of a worker process before its first job, whether Ray Tune or Ray Train has started it."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass

from ray import cloudpickle

from autokd.errors import AutoKDError
from autokd.jobs import EvaluatorFactory, WorkerResources


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """Everything that a worker process needs before its first job.

    Attributes:
        factory: the pickled evaluator factory. It stays bytes until the environment is set: unpickling it imports
            torch, which reads OMP_NUM_THREADS once.
        resources: what the worker may use.
        working_directory: the driver's, so that relative paths mean the same.
        import_paths: the driver's ``sys.path``, so that the factory's modules are found.
    """

    factory: bytes
    resources: WorkerResources
    working_directory: str
    import_paths: tuple[str, ...]

    @classmethod
    def of_this_process(cls, factory: EvaluatorFactory, resources: WorkerResources) -> WorkerSetup:
        """Return the setup of a worker of the driver in this process."""
        # Absolute paths: an empty entry of ``sys.path`` means the working directory, which is another one in a worker.
        paths = tuple(os.path.abspath(path) for path in sys.path)
        return cls(cloudpickle.dumps(factory), resources, os.getcwd(), paths)


@dataclass(frozen=True, slots=True)
class FactoryFailure:
    """The factory raised, so no job can ever run.

    Attributes:
        pickled: the exception.
    """

    pickled: bytes


def prepare_process(worker: WorkerSetup) -> None:
    """Set threads, import paths and working directory; must run before torch is imported."""
    if worker.resources.num_threads:
        os.environ["OMP_NUM_THREADS"] = str(worker.resources.num_threads)
        os.environ["MKL_NUM_THREADS"] = str(worker.resources.num_threads)
    # A node of a cluster may lack the driver's folders; what is there already keeps its order.
    sys.path.extend(path for path in worker.import_paths if path not in sys.path and os.path.isdir(path))
    if os.path.isdir(worker.working_directory):
        os.chdir(worker.working_directory)


def pickled_error(error: Exception) -> bytes:
    """Return the pickled exception, or an AutoKDError with its traceback if it cannot be pickled."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        data: bytes = cloudpickle.dumps(error)
        cloudpickle.loads(data)  # pickling may succeed and unpickling fail: constructors with other arguments
    except Exception:  # noqa: BLE001 - whatever an exception's own methods raise
        data = cloudpickle.dumps(AutoKDError(f"the evaluator could not be built in a worker:\n{trace}"))
    return data
