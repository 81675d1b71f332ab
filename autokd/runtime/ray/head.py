"""A Ray with a job server on this machine, that outlives the process that started it.

All ports are free ones: the defaults of ``ray start`` (6379, 8265, 52365 of the job agent, ...) may belong to another
Ray of this machine, beside which the job agent would not start. It asks for a token (``token``), and listens on the
loopback address alone where Ray lets one choose.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autokd.errors import RuntimeUnavailableError
from autokd.files import write_text_atomically
from autokd.runtime.ray.session import quiet_environment
from autokd.runtime.ray.token import prepare_token

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 30.0
_PORTS = (
    "--port", "--dashboard-port", "--dashboard-agent-listen-port", "--dashboard-agent-grpc-port",
    "--ray-client-server-port", "--node-manager-port", "--object-manager-port", "--runtime-env-agent-port",
    "--metrics-export-port",
)  # fmt: skip


class RayHead:
    """A local Ray, described by a file in a folder; a process that starts later finds it there.

    Args:
        folder: folder of the file and of the log.
        num_cpus: CPUs that jobs and workers may reserve.
        object_store_bytes: memory for objects.
    """

    def __init__(self, folder: Path, num_cpus: int, object_store_bytes: int = 2**27) -> None:
        self._file = folder / "head.json"
        self._log = folder / "head.log"
        self._num_cpus = num_cpus
        self._object_store_bytes = object_store_bytes

    def address(self) -> str:
        """Return the address of the job server; a Ray is started if none answers.

        Raises:
            RuntimeUnavailableError: if Ray cannot start.
        """
        known = self._known()
        if known is not None and _answers(known["port"]):
            return f"http://127.0.0.1:{known['port']}"
        self.stop()
        return self._start()

    def stop(self) -> None:
        """End the Ray that the file describes, and all its jobs; do nothing if there is none."""
        known = self._known()
        if known is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if _is_ray(known["pid"]):
                os.kill(known["pid"], signal.SIGTERM)
                _await_end(known["pid"])
        self._file.unlink(missing_ok=True)

    def _start(self) -> str:
        prepare_token()
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        # Unix sockets lie below this folder, whose paths may have 107 characters; it is this user's alone.
        temporary = tempfile.mkdtemp(prefix="autokd-", dir="/tmp" if os.path.isdir("/tmp") else None)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--dashboard-host", "127.0.0.1", "--include-dashboard", "true", "--num-cpus", str(self._num_cpus)]
        command += ["--object-store-memory", str(self._object_store_bytes), "--temp-dir", f"{temporary}/r"]
        command += ["--min-worker-port", "0", "--max-worker-port", "0"]
        command += [part for name, port in ports.items() for part in (name, str(port))]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with quiet_environment(), open(self._log, "ab") as log:
            environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
            process = subprocess.Popen(
                command, env=environment | {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        port = ports["--dashboard-port"]
        write_text_atomically(self._file, json.dumps({"pid": process.pid, "port": port, "folder": temporary}))
        self._await_answer(process, port)
        return f"http://127.0.0.1:{port}"

    def _await_answer(self, process: subprocess.Popen[bytes], port: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            if _answers(port):
                return
            time.sleep(0.2)
        self.stop()
        raise RuntimeUnavailableError(
            f"a local Ray could not be started within {START_TIMEOUT_S:.0f} s; {self._log} says why. Give the address "
            "of a cluster (--ray-address http://host:8265), or run searches as processes (--backend processes)."
        )

    def _known(self) -> dict[str, int] | None:
        try:
            known: dict[str, int] = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return known


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that are free now, all different.

    Args:
        count: number of ports.
    """
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2.0):
        return True
    return False


def _is_ray(pid: int) -> bool:
    """Return whether a process id still belongs to Ray's start command, and not to a later process."""
    try:
        return b"ray.scripts.scripts" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _await_end(pid: int) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline and _is_ray(pid):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.1)
