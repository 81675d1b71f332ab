"""``autokd serve``: a service in this process until Ctrl-C."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from autokd.errors import AutoKDError, StorageError
from autokd.service.jobs import JobBackend
from autokd.service.settings import ServiceSettings

Backend = Literal["ray", "processes"]


def make_backend(
    settings: ServiceSettings, kind: Backend, ray_address: str | None, num_cpus: int, command: tuple[str, ...] = ()
) -> JobBackend:
    """Return what runs the jobs of a service.

    Args:
        settings: folders of the service.
        kind: "ray", or "processes" of this machine.
        ray_address: address of a cluster's job server; None: a Ray is started on this machine.
        num_cpus: CPUs of that Ray.
        command: command of autokd where jobs run; empty: this Python's on this machine, "autokd" on a cluster.
    """
    own = command or (sys.executable, "-m", "autokd")
    if kind == "processes":
        from autokd.service.process_jobs import ProcessBackend

        return ProcessBackend(settings.folder / "jobs", own)
    from autokd.runtime.ray.head import RayHead
    from autokd.service.ray_jobs import RayBackend

    if ray_address is not None:
        return RayBackend(lambda: ray_address, command or ("autokd",))
    return RayBackend(RayHead(settings.folder / "ray", num_cpus).address, own)


def check_roots(roots: tuple[Path, ...]) -> None:
    """Check the allowed folders.

    Args:
        roots: folders that config files may name.

    Raises:
        AutoKDError: if one is no folder.
    """
    for root in roots:
        if not root.is_dir():
            raise AutoKDError(f"--root {root}: there is no such folder.")


def run_service(
    settings: ServiceSettings, backend: JobBackend, host: str, port: int, names: tuple[str, ...] = ()
) -> None:
    """Serve until Ctrl-C; jobs go on.

    Args:
        settings: what the operator decides.
        backend: what runs the jobs.
        host: address to listen on.
        port: port to listen on.
        names: further names of the server.

    Raises:
        StorageError: if the database cannot be opened, or the port is taken.
    """
    import socket

    import uvicorn

    from autokd.service.app import make_app
    from autokd.service.service import Service

    service = Service(settings, backend)
    app = make_app(service, host, names)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)  # from here on clients wait instead of being refused
    except OSError as error:
        raise StorageError(f"the service cannot listen on {host}:{port}: {error}. Name another --port.") from error
    print(f"AutoKD serves http://{host}:{listener.getsockname()[1]}/ (Ctrl-C ends it; searches go on)", flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3, access_log=False)
    uvicorn.Server(config).run(sockets=[listener])
