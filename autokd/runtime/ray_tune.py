"""Jobs on reusable Ray Tune actors, on this machine or on a cluster."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from typing import Any, Literal

try:
    import ray
    from ray import cloudpickle, tune
except ImportError as error:
    from autokd.errors import RuntimeUnavailableError

    raise RuntimeUnavailableError(
        f'Ray cannot be imported ({error}). Install it (pip install "ray[tune,default]"), or set workers: 0 to '
        "train in this process."
    ) from error

from autokd.errors import RuntimeUnavailableError
from autokd.outcomes import EvaluatorFactory, WorkerResources
from autokd.runtime.contract import Driver, Runtime
from autokd.runtime.ray_bridge import Bridge, JobScheduler, JobSearcher, RunAborted, StartWatch
from autokd.runtime.ray_session import RaySession, quiet_environment
from autokd.runtime.ray_worker import JobTrainable, WorkerSetup
from autokd.runtime.resources import divide, num_local_cores


class RayTuneRuntime(Runtime):
    """``workers`` actors at a time; ``address`` None starts a Ray of its own, else joins one."""

    def __init__(
        self,
        workers: int,
        *,
        address: str | None = None,
        threads_per_worker: int = 0,
        gpus_per_worker: float | Literal["auto"] = "auto",
        max_worker_losses: int = 1,
    ) -> None:
        self.num_workers = workers
        self._threads_per_worker = threads_per_worker
        self._gpus_per_worker = gpus_per_worker
        self._max_worker_losses = max_worker_losses
        self._session = RaySession(address, num_cpus=max(workers, 1))

    def __enter__(self) -> RayTuneRuntime:
        self._session.open()
        return self

    def close(self) -> None:
        self._session.close()

    def run(
        self,
        driver: Driver,
        factory: EvaluatorFactory,
        *,
        job_timeouts_s: Mapping[str, float | None] | None = None,
    ) -> None:
        self._session.open()
        bridge = Bridge(driver, self._max_worker_losses, job_timeouts_s or {})
        files = tempfile.mkdtemp(prefix="autokd-tune-")
        try:
            with quiet_environment():
                self._tune(bridge, factory, files)
        except BaseException as error:
            # Tune's actors may be in the middle of a training: leaving Ray ends them at once. The next run
            # starts afresh.
            self._session.close()
            if isinstance(error, RunAborted):
                raise error.error from None
            raise
        finally:
            shutil.rmtree(files, ignore_errors=True)

    def _tune(self, bridge: Bridge, factory: EvaluatorFactory, files: str) -> None:
        resources = self._divide()
        worker = WorkerSetup(
            factory=cloudpickle.dumps(factory),
            resources=resources,
            working_directory=os.getcwd(),
            import_paths=tuple(os.path.abspath(path) for path in sys.path),
        )
        trainable: Any = tune.with_resources(
            tune.with_parameters(JobTrainable, worker=worker),
            {"cpu": self._cpus(resources), "gpu": resources.gpu_fraction},
        )
        tune.run(
            trainable,
            name="run",
            num_samples=-1,
            search_alg=JobSearcher(bridge),
            scheduler=JobScheduler(bridge),
            callbacks=[StartWatch(bridge)],
            max_concurrent_trials=self.num_workers,
            reuse_actors=True,
            raise_on_failed_trial=False,
            storage_path=files,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
            verbose=0,
        )

    def _divide(self) -> WorkerResources:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [num_local_cores()] if self._session.is_local else [node.get("CPU", 0.0) for node in nodes]
        num_gpus = sum(node.get("GPU", 0.0) for node in nodes)
        resources = divide(
            cores,
            num_gpus,
            workers=self.num_workers,
            threads_per_worker=self._threads_per_worker,
            gpus_per_worker=self._gpus_per_worker,
        )
        if resources.gpu_fraction > num_gpus:
            raise RuntimeUnavailableError(
                f"runtime.gpus_per_worker is {resources.gpu_fraction:g}, but Ray sees {num_gpus:g} GPUs. "
                "Set it to auto or 0, or join a cluster that has them (runtime.ray_address)."
            )
        return resources

    def _cpus(self, resources: WorkerResources) -> int:
        """Cores that an actor reserves. A Ray of our own has a place for each worker, whatever its threads."""
        return 1 if self._session.is_local else resources.num_threads
