"""Searches on generated images, as processes that faults can hit.

Each is a fork of this process, which has imported everything already: imports would cost more than the search. The
child is a process of its own in every other respect: session, standard error, limits, signals.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SPACE = """
name: chaos
data: {format: shapes, image_size_px: [64, 64], num_train: 12, num_val: 6, num_test: 6}
teacher: {backbone: {width: 8}, train: {epochs: 1}}
student: {backbone: {width: 8}}
space:
  terms: 1
  sources: [feature_map, foreground]
  transforms: {normalize: [none, standardize]}
  distances: [l1, l2]
  gradient_ratio: {log_uniform: [3, 100]}
search: {trials: 5, enqueue: [fitnet, pkd], finalists: 2, finalist_seeds: [1]}
proxy: {epochs: 1, steps: 3, calibration_trials: 2, warm_start: {epochs: 1}}
full: {epochs: 1, seeds: [0], baselines: [none]}
runtime: {workers: 0, checkpoint_every_s: 0, threads_per_worker: 1}
"""

LONGEST_S = 900.0
"""Seconds after which a search that should end by itself counts as hanging."""


@dataclass
class Search:
    """A running search.

    Attributes:
        pid: its process.
        log: its standard output and error.
        exit_code: as ``subprocess`` gives it; None while it runs.
    """

    pid: int
    log: Path
    exit_code: int | None = None
    cpu_s: float = 0.0

    @property
    def text(self) -> str:
        """Everything that it has printed."""
        return self.log.read_text(errors="replace")

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.exit_code is None:
            self.cpu_s = max(self.cpu_s, cpu_seconds(self.pid))
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code

    def wait(self, longest_s: float = LONGEST_S) -> int:
        """Return the exit code.

        Raises:
            TimeoutError: if the search has not ended in time; it is killed.
        """
        until = time.monotonic() + longest_s
        while self.poll() is None:
            if time.monotonic() > until:
                self.end()
                raise TimeoutError(f"nothing within {longest_s:g} s: {self.text[-500:]}")
            time.sleep(0.02)
        assert self.exit_code is not None
        return self.exit_code

    def wait_for_cpu(self, seconds: float) -> bool:
        """Wait until the search has used so much time of a core: on a busy machine the clock says little.

        Returns:
            Whether it still runs.
        """
        while self.poll() is None and self.cpu_s < seconds:
            time.sleep(0.005)
        return self.exit_code is None

    def signal(self, number: int) -> None:
        """Send a signal, if the search still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def end(self) -> None:
        """Kill it, and wait for its end."""
        self.signal(signal.SIGKILL)
        while self.poll() is None:
            time.sleep(0.01)


@dataclass
class Laboratory:
    """A folder with the space, runs and caches.

    Attributes:
        folder: the folder.
        cache: cache that searches share, filled by the first one.
    """

    folder: Path
    _count: int = field(default=0)

    def __post_init__(self) -> None:
        self.space = self.folder / "chaos.yaml"
        self.space.write_text(SPACE)
        self.cache = self.folder / "cache"
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir(exist_ok=True)

    def start(
        self,
        run: Path,
        *arguments: str,
        cache: Path | None = None,
        before: Callable[[], None] | None = None,
    ) -> Search:
        """Start ``autokd search`` in a process of its own.

        Args:
            run: run directory.
            arguments: further arguments.
            cache: cache; None: the shared one.
            before: called in the new process first.
        """
        self._count += 1
        log = self.folder / f"log-{os.getpid()}-{self._count}"
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return Search(pid, log)
        _become_search(log, self.temporary, before)
        words = ["search", str(self.space), "--run-dir", str(run), "--cache-dir", str(cache or self.cache)]
        _run(["autokd", *words, "--forecast", "0", *arguments])
        raise AssertionError("the child ends in _run")


def _become_search(log: Path, temporary: Path, before: Callable[[], None] | None) -> None:
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ["TMPDIR"] = str(temporary)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before is not None:
        before()


def _run(arguments: list[str]) -> None:
    from autokd.cli import main

    sys.argv = arguments
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - as the interpreter would print it
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            import ray

            if ray.is_initialized():
                ray.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def cpu_seconds(pid: int) -> float:
    """Return the seconds of a core that a process has used; 0 if it is gone.

    Args:
        pid: the process.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def processes_of(mark: str) -> list[int]:
    """Return the living processes whose command line or session names something.

    Args:
        mark: text to look for in command lines.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "cmdline").read_bytes().decode(errors="replace"):
                    found.append(int(entry.name))
    return found


def processes_of_session(session: int) -> list[int]:
    """Return the living processes of a session.

    Args:
        session: number of the session, which is that of the search's process.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    found.append(int(entry.name))
    return found
