"""Start, join and leave Ray, without its messages and within a bounded time."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from autokd.errors import RuntimeUnavailableError
from autokd.jobs import WorkerResources
from autokd.runtime.ray.answer import no_answer, require_cluster, require_token
from autokd.runtime.ray.token import TOKEN_REMEDY, prepare_token
from autokd.runtime.resources import divide, num_local_cores
from autokd.temporary import own_folder

logger = logging.getLogger(__name__)

GPU_WAIT_S, GPU_POLL_S = 900.0, 2.0
"""Seconds in which an autoscaled cluster must have started a GPU that it was asked for; seconds between two looks."""
_PATIENCE = {
    "worker_register_timeout_seconds": 600,
    "health_check_timeout_ms": 60_000,
    "health_check_failure_threshold": 10,
}
"""Settings of a Ray that is started here, on whose one machine nothing is lost without notice. By its defaults Ray
gives a worker 60 s to import, and declares a node dead, with all its workers, that does not answer for a minute; on a
machine with many times more processes than cores both happen to sound ones."""
_OBJECT_STORE_BYTES = 128 * 2**20
"""Memory of a Ray that is started here: only jobs and metrics pass through it, and Ray would take 30% of all memory."""

# Ray and Tune read these settings from the environment alone.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to Ray's makers
    "RAY_AIR_NEW_OUTPUT": "0",  # the old progress display, which verbose=0 silences
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a configuration must keep their meaning in workers
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # CUDA_VISIBLE_DEVICES stays, whatever this version's default
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no result files: metrics go to the study
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C belongs to the study, which stores the interruption
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # results hold an event, not a metric
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # never: Tune's state is not what a search resumes from
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",  # each event reaches the driver before the worker's next step, so it can prune
    "TUNE_WARN_THRESHOLD_S": "60",
}


@contextlib.contextmanager
def quiet_environment() -> Iterator[None]:
    """Set the environment for Ray and Tune and silence their loggers while the context lasts.

    Variables that the user has set stay as they are.
    """
    before = {name: os.environ.get(name) for name in _QUIET}
    os.environ.update({name: value for name, value in _QUIET.items() if before[name] is None})
    loggers = {name: logging.getLogger(name) for name in ("ray", "ray.tune", "ray.train", "ray.data")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Put the handler of SIGTERM back that Ray replaces: the driver ends a run in order."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


class RaySession:
    """The connection of this process to Ray: started here, joined at an address, or open already.

    Args:
        address: host:port of a cluster, or "auto"; None starts a Ray on this machine.
        num_cpus: CPUs of a Ray that is started here, which bounds its number of workers.
    """

    def __init__(self, address: str | None, num_cpus: int) -> None:
        self._address = address
        self._num_cpus = num_cpus
        self._temporary = contextlib.ExitStack()
        self._owned = False

    @property
    def is_local(self) -> bool:
        """Whether Ray was started for this process alone."""
        return self._address is None

    def open(self) -> None:
        """Start or join Ray; do nothing if this process is connected.

        Raises:
            RuntimeUnavailableError: if Ray cannot start, or no cluster answers at the address; with the remedy.
        """
        if ray.is_initialized():
            return  # whoever connected this process keeps the connection: ``close`` leaves it alone
        try:
            with quiet_environment(), _signal_handlers_kept():
                if self._address is None:
                    self._start()
                else:
                    self._join(self._address)
        except BaseException:
            self.close()
            raise
        self._owned = True
        _redirect_worker_messages()

    def close(self) -> None:
        """Leave Ray; a Ray that was started here stops, and its files are removed."""
        if self._owned:
            self._owned = False
            ray.shutdown()
        self._temporary.close()

    def divide(
        self, workers: int, threads_per_worker: int, gpus_per_worker: float | Literal["auto"]
    ) -> WorkerResources:
        """Divide Ray's cores and GPUs among workers (``autokd.runtime.resources.divide``).

        Raises:
            RuntimeUnavailableError: if a worker would get more GPUs than Ray has, or a cluster that was joined has none
                and it is not said that workers need none.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        # A Ray of our own has as many "CPUs" as workers, so it does not know the cores.
        cores = [num_local_cores()] if self.is_local else [node.get("CPU", 0.0) for node in nodes]
        num_gpus = self.total("GPU")
        if not self.is_local and num_gpus < 1:
            num_gpus = self._wait_for_gpus(workers, gpus_per_worker)
        resources = divide(
            cores, num_gpus, workers=workers, threads_per_worker=threads_per_worker, gpus_per_worker=gpus_per_worker
        )
        if resources.gpu_fraction > num_gpus:
            raise RuntimeUnavailableError(
                f"runtime.gpus_per_worker is {resources.gpu_fraction:g}, but Ray sees {num_gpus:g} GPUs. "
                "Set it to auto or 0, or join a cluster that has them (runtime.ray_address)."
            )
        return resources

    def _wait_for_gpus(self, workers: int, gpus_per_worker: float | Literal["auto"]) -> float:
        """Ask a cluster without GPUs for some, and return how many there are then.

        "auto" cannot mean the CPU here: an autoscaled cluster starts its nodes with GPUs when they are asked for, and a
        training that began before would go on for months on the head node's cores.
        """
        if gpus_per_worker == 0:
            return 0.0
        if gpus_per_worker == "auto":
            raise RuntimeUnavailableError(
                f"the Ray cluster at {self._address!r} has no GPU now, so runtime.gpus_per_worker: auto cannot divide "
                "any. Set it to 0 to train on CPUs, or to 1 (or a fraction), for which the cluster is asked and waited "
                f"for up to {GPU_WAIT_S / 60:.0f} minutes."
            )
        request_resources(bundles=[{"GPU": gpus_per_worker}] * workers)
        until_s = time.monotonic() + GPU_WAIT_S
        while (found := self.total("GPU")) < gpus_per_worker and time.monotonic() < until_s:
            time.sleep(GPU_POLL_S)
        return found

    def cpus_of(self, resources: WorkerResources) -> int:
        """Return the CPUs that a worker reserves: 1 in a Ray of our own, which has one for each worker."""
        return 1 if self.is_local else resources.num_threads

    @staticmethod
    def total(name: str) -> float:
        """Return the amount of a resource ("CPU", "GPU") on all live nodes."""
        return float(sum(node["Resources"].get(name, 0.0) for node in ray.nodes() if node["Alive"]))

    def _start(self) -> None:
        prepare_token()
        # Ray puts Unix sockets below this folder, whose paths may have 107 characters: $TMPDIR may be too long.
        folder = self._temporary.enter_context(own_folder(Path("/tmp") if os.path.isdir("/tmp") else None))
        try:
            with _free_agent_port():
                ray.init(
                    address="local",
                    num_cpus=self._num_cpus,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    configure_logging=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    _system_config=_PATIENCE,
                    # Ray lets everyone write into its folder (mode 0777): it lies within one that is this user's alone.
                    _temp_dir=str(folder / "ray"),
                )
        except Exception as error:
            raise RuntimeUnavailableError(
                f"Ray could not be started on this machine: {error}\n"
                "Try again when the machine is less busy, or set workers: 0 to train in this process without Ray."
            ) from error

    def _join(self, address: str) -> None:
        require_cluster(address)
        enable_local_token("localhost" if address == "auto" else address.rpartition(":")[0])
        require_token(address)
        try:
            ray.init(address=address, configure_logging=False, logging_level=logging.ERROR, log_to_driver=False)
        except RayError as error:
            raise RuntimeUnavailableError(f"the Ray cluster at {address!r} refuses: {error}\n{TOKEN_REMEDY}") from error
        except (OSError, RuntimeError, ValueError) as error:
            raise RuntimeUnavailableError(no_answer(address, str(error))) from error


@contextlib.contextmanager
def _free_agent_port() -> Iterator[None]:
    """Let the node that starts meanwhile choose a free port for its agent, as it does for every other port.

    ``ray.init`` has no parameter for that port: it leaves RayParams' default, 52365, which belongs to ``ray start`` on
    the same machine. A cluster that cannot have it takes no jobs. The only remedy is to complete RayParams, which is
    private; a Ray without it keeps its own choice.
    """
    from ray._private import parameter

    original = getattr(parameter, "RayParams", None)
    if original is None:
        yield
        return
    parameter.RayParams = functools.partial(  # type: ignore[misc, assignment]
        original, dashboard_agent_listen_port=0
    )
    try:
        yield
    finally:
        parameter.RayParams = original  # type: ignore[misc]


def enable_local_token(host: str) -> None:
    """Send the user's Ray token to a cluster on this machine, as Ray's own commands do.

    Other machines get it only if the user sets RAY_AUTH_MODE=token, which is Ray's rule.

    Args:
        host: host of the cluster.
    """
    if host not in ("localhost", "127.0.0.1", "::1") or "RAY_AUTH_MODE" in os.environ:
        return
    try:
        from ray._private.authentication import authentication_token_setup
    except ImportError:  # a Ray without tokens
        return
    with quiet_environment():
        authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _redirect_worker_messages() -> None:
    """Send Ray's messages about dead workers to AutoKD's log.

    Ray prints them into the live view of a search, whatever ``log_to_driver`` is. The only remedy is to replace a
    private function of Ray; a version without that function prints them.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):

        def _log(data: dict[str, Any], *_: Any, **__: Any) -> None:
            logger.info("ray: %s", " ".join(str(line) for line in data.get("lines", ())))

        worker.print_to_stdstream = _log
