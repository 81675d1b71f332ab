"""Jobs on reusable Ray Tune actors, on this machine or on a cluster."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from typing import Any, Literal

try:
    from ray import cloudpickle, tune
except ImportError as error:
    from autokd.errors import RuntimeUnavailableError

    raise RuntimeUnavailableError(
        f'Ray cannot be imported ({error}). Install it (pip install "ray[tune,default]"), or set workers: 0 to '
        "train in this process."
    ) from error

from autokd.outcomes import EvaluatorFactory
from autokd.runtime.contract import Driver, Runtime
from autokd.runtime.ray.session import RaySession, quiet_environment
from autokd.runtime.ray.tune_bridge import Bridge, JobScheduler, JobSearcher, RunAborted, TrialStartCallback
from autokd.runtime.ray.tune_worker import JobTrainable
from autokd.runtime.ray.worker_process import WorkerSetup


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
        resources = self._session.divide(self.num_workers, self._threads_per_worker, self._gpus_per_worker)
        worker = WorkerSetup(
            factory=cloudpickle.dumps(factory),
            resources=resources,
            working_directory=os.getcwd(),
            import_paths=tuple(os.path.abspath(path) for path in sys.path),
        )
        trainable: Any = tune.with_resources(
            tune.with_parameters(JobTrainable, worker=worker),
            {"cpu": self._session.cpus_of(resources), "gpu": resources.gpu_fraction},
        )
        tune.run(
            trainable,
            name="run",
            num_samples=-1,
            search_alg=JobSearcher(bridge),
            scheduler=JobScheduler(bridge),
            callbacks=[TrialStartCallback(bridge)],
            max_concurrent_trials=self.num_workers,
            reuse_actors=True,
            raise_on_failed_trial=False,
            storage_path=files,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
            verbose=0,
        )
