"""Starting, joining and leaving Ray, quietly and within a bounded time."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from typing import Any, Literal

import ray
from ray.exceptions import RayError

from autokd.errors import RuntimeUnavailableError
from autokd.outcomes import WorkerResources
from autokd.runtime.resources import divide, num_local_cores

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 15.0
_OBJECT_STORE_BYTES = 128 * 2**20
"""Only jobs and metrics pass through Ray."""

TOKEN_REMEDY = (
    "If the cluster asks for a token: put it into ~/.ray/auth_token (or RAY_AUTH_TOKEN) and set RAY_AUTH_MODE=token."
)

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
}
"""Tune writes no files but at the end, prints nothing, and leaves Ctrl-C to us."""


@contextlib.contextmanager
def quiet_environment() -> Iterator[None]:
    """Ray's and Tune's settings for the time of the context; what the user has set himself stays."""
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


class RaySession:
    """Ray as this process uses it: started here, joined at an address, or found running in the process."""

    def __init__(self, address: str | None, num_cpus: int) -> None:
        self._address = address
        self._num_cpus = num_cpus
        self._temporary: str | None = None
        self._owned = False

    @property
    def is_local(self) -> bool:
        """Whether Ray runs for this process alone."""
        return self._address is None

    def open(self) -> None:
        """Start or join; nothing if that is done. RuntimeUnavailableError says what to do."""
        if ray.is_initialized():
            return
        try:
            with quiet_environment():
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
        """Leave Ray, and stop it and remove its files if it was started here."""
        if self._owned:
            self._owned = False
            ray.shutdown()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def divide(
        self, workers: int, threads_per_worker: int, gpus_per_worker: float | Literal["auto"]
    ) -> WorkerResources:
        """What each of ``workers`` gets of Ray's machines; RuntimeUnavailableError if there are too few cards."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [num_local_cores()] if self.is_local else [node.get("CPU", 0.0) for node in nodes]
        num_gpus = self.total("GPU")
        resources = divide(
            cores, num_gpus, workers=workers, threads_per_worker=threads_per_worker, gpus_per_worker=gpus_per_worker
        )
        if resources.gpu_fraction > num_gpus:
            raise RuntimeUnavailableError(
                f"runtime.gpus_per_worker is {resources.gpu_fraction:g}, but Ray sees {num_gpus:g} GPUs. "
                "Set it to auto or 0, or join a cluster that has them (runtime.ray_address)."
            )
        return resources

    def cpus_of(self, resources: WorkerResources) -> int:
        """Cores that a worker reserves. A Ray of our own has a place for each worker, whatever its threads."""
        return 1 if self.is_local else resources.num_threads

    @staticmethod
    def total(name: str) -> float:
        """How much of a resource (CPU, GPU) Ray has in all."""
        return float(sum(node["Resources"].get(name, 0.0) for node in ray.nodes() if node["Alive"]))

    def _start(self) -> None:
        # Sockets lie below this folder, and their paths may have 107 characters only.
        self._temporary = tempfile.mkdtemp(prefix="autokd-", dir="/tmp" if os.path.isdir("/tmp") else None)
        try:
            ray.init(
                address="local",
                num_cpus=self._num_cpus,
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                configure_logging=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                _temp_dir=self._temporary,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise RuntimeUnavailableError(
                f"Ray could not be started on this machine: {error}\n"
                "Set workers: 0 to train in this process without Ray."
            ) from error

    def _join(self, address: str) -> None:
        _require_cluster(address)
        enable_local_token(address.rpartition(":")[0])
        try:
            ray.init(address=address, configure_logging=False, logging_level=logging.ERROR, log_to_driver=False)
        except RayError as error:
            raise RuntimeUnavailableError(f"the Ray cluster at {address!r} refuses: {error}\n{TOKEN_REMEDY}") from error
        except (OSError, RuntimeError, ValueError) as error:
            raise RuntimeUnavailableError(_no_answer(address, str(error))) from error


def enable_local_token(host: str) -> None:
    """Let a cluster on this very machine see the user's Ray token, as Ray's own commands do.

    Other machines see it only if the user asks for it with RAY_AUTH_MODE=token, which is Ray's rule.
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
    """Send Ray's messages about dead workers to our log: they would be printed into the live view, whatever
    ``log_to_driver`` says. Where Ray has changed inside, they are printed."""
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):

        def _log(data: dict[str, Any], *_: Any, **__: Any) -> None:
            logger.info("ray: %s", " ".join(str(line) for line in data.get("lines", ())))

        worker.print_to_stdstream = _log


def _require_cluster(address: str) -> None:
    """Fail soon where nobody listens: Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise RuntimeUnavailableError(
            f"ray address {address!r}: searches do not run over Ray's client protocol. Run on a node of the "
            "cluster with its address as host:port (or auto), or use 'autokd submit' with its http:// address."
        )
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise RuntimeUnavailableError(f"ray address {address!r} is not host:port (the port is mostly 6379), nor auto.")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0" and not _speaks_grpc(connection):
                raise RuntimeUnavailableError(
                    _no_answer(
                        address, "something else listens there (8265 is the dashboard's port; mostly 6379 is meant)"
                    )
                )
    except OSError as error:
        raise RuntimeUnavailableError(_no_answer(address, str(error))) from error


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether the other side answers the opening of HTTP/2 with its settings, as every gRPC server does."""
    empty_settings = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty_settings)
    answer = connection.recv(9)
    return len(answer) == 9 and answer[3] == 4


def _no_answer(address: str, reason: str) -> str:
    return (
        f"no Ray cluster answers at {address!r}: {reason}\n"
        "Start one with 'ray start --head', give its host:port, or leave the address out for a local Ray."
    )
