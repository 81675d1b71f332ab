"""An evaluator that reports what its worker may use."""

from __future__ import annotations

import os
from collections.abc import Generator

from autokd.jobs import Job, Outcome, Report, WorkerResources


class ResourceReporter:
    """Factory and evaluator in one: the metrics of its outcomes are the worker's resources."""

    def __init__(self, resources: WorkerResources) -> None:
        self._resources = resources

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        yield Report(job.id, 1, {})
        metrics = {
            "threads": self._resources.num_threads,
            "omp_threads": int(os.environ.get("OMP_NUM_THREADS", 0)),
            "gpu_fraction": self._resources.gpu_fraction,
            "is_cuda": self._resources.device == "cuda",
        }
        return Outcome(job.id, "finished", metrics)
