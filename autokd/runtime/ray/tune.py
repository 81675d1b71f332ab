"""Jobs on reusable Ray Tune actors, on this machine or on a cluster.

Tune neither searches nor schedules here: Optuna does, through the driver. Plain actors would be faster to start, and
Tune stays because users know it and AutoKD's design names it. It places the actors, keeps them from trial to trial and
notices their death; ``tune_bridge`` is the searcher and the scheduler that connect it with the driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

try:
    from ray import tune
except ImportError as error:
    from autokd.errors import RuntimeUnavailableError

    raise RuntimeUnavailableError(
        f'Ray cannot be imported ({error}). Install it (pip install "ray[tune,default]"), or set workers: 0 to '
        "train in this process."
    ) from error

from autokd.jobs import EvaluatorFactory
from autokd.runtime.contract import Driver, Runtime
from autokd.runtime.ray.session import RaySession, quiet_environment
from autokd.runtime.ray.tune_bridge import Bridge, ClockCallback, JobScheduler, JobSearcher, RunAborted
from autokd.runtime.ray.tune_worker import JobTrainable
from autokd.runtime.ray.worker_process import WorkerSetup
from autokd.temporary import own_folder


class RayTuneRuntime(Runtime):
    """A runtime of actors, each of which runs one job at a time.

    Args:
        workers: number of actors.
        address: host:port of a Ray cluster, or "auto"; None starts a Ray on this machine.
        threads_per_worker: 0: an equal part of the cores.
        gpus_per_worker: "auto": an equal part of the GPUs.
        max_worker_losses: number of times in a row that a job is run again after its actor died without an epoch more.
    """

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
        """Leave Ray, and stop it if it was started here."""
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
        try:
            with quiet_environment(), own_folder() as files:
                self._tune(bridge, factory, str(files))
        except BaseException as error:
            # Tune's actors may be in the middle of a training; leaving Ray kills them at once. The next ``run`` opens a
            # new session.
            self._session.close()
            # From None: the traceback through Tune's event loop would hide the driver's own.
            if isinstance(error, RunAborted):
                raise error.error from None
            raise

    def _tune(self, bridge: Bridge, factory: EvaluatorFactory, files: str) -> None:
        resources = self._session.divide(self.num_workers, self._threads_per_worker, self._gpus_per_worker)
        worker = WorkerSetup.of_this_process(factory, resources)
        # Tune makes a placement group of the resources: an actor starts once a node has them all free. The setup goes
        # into the object store once (with_parameters), in place of a copy in every trial's configuration.
        trainable: Any = tune.with_resources(
            tune.with_parameters(JobTrainable, worker=worker),
            {"cpu": self._session.cpus_of(resources), "gpu": resources.gpu_fraction},
        )
        tune.run(
            trainable,
            name="run",
            num_samples=-1,  # the searcher decides when there are no more
            search_alg=JobSearcher(bridge),
            scheduler=JobScheduler(bridge),
            callbacks=[ClockCallback(bridge)],
            max_concurrent_trials=self.num_workers,
            reuse_actors=True,  # an evaluator's imports and data outlive the trial
            raise_on_failed_trial=False,  # the bridge retries a lost job, or ends it as an outcome
            storage_path=files,
            # The default name holds the configuration, which is a whole job here.
            trial_dirname_creator=lambda trial: str(trial.trial_id),
            verbose=0,
        )
