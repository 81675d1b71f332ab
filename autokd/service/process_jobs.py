"""Jobs as processes of this machine, for one machine without Ray's job server.

A job's folder has its process id, its log and its exit code, so that a service that starts again finds it. Each job
is a session of its own and lives on if the service ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from autokd.files import write_text_atomically
from autokd.service.jobs import JobRequest, JobStatus

KILL_AFTER_S = 30.0
"""Seconds after SIGINT until a job that is asked to end is killed."""
COMMAND = (sys.executable, "-m", "autokd")


class ProcessBackend:
    """Runs jobs as processes.

    Args:
        folder: folder of the jobs.
        command: program that gets a job's arguments.
        kill_after_s: seconds until a job that is asked to end is killed.
    """

    name = "processes of this machine"

    def __init__(self, folder: Path, command: Sequence[str] = COMMAND, kill_after_s: float = KILL_AFTER_S) -> None:
        self._folder = folder
        self._command = tuple(command)
        self._kill_after_s = kill_after_s
        folder.mkdir(parents=True, exist_ok=True)

    def submit(self, request: JobRequest) -> None:
        """Start a process that writes its exit code when it ends."""
        place = self._folder / request.job_id
        try:
            place.mkdir()
        except FileExistsError:
            return
        waiter = [sys.executable, "-c", _WAITER, str(place), *self._command, *request.arguments]
        with open(place / "log", "ab") as log:
            process = subprocess.Popen(
                waiter, cwd=request.working_dir, env=os.environ | dict(request.environment), stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        write_text_atomically(place / "process", json.dumps({"pid": process.pid, "began": _began(process.pid)}))
        threading.Thread(target=process.wait, daemon=True).start()  # so that no zombie counts as alive

    def statuses(self) -> Mapping[str, JobStatus]:
        """Return the status of every job that has a folder."""
        return {place.name: self._status(place) for place in self._folder.iterdir() if place.is_dir()}

    def stop(self, job_id: str) -> None:
        """Send SIGINT, as Ctrl-C does, and SIGKILL if that does not end the job."""
        place = self._folder / job_id
        if not place.is_dir():
            return
        asked = place / "stopped"
        if not asked.exists():
            asked.write_text(str(time.time()))
            self._signal(place, signal.SIGINT)
        elif time.time() - float(asked.read_text() or 0) > self._kill_after_s:
            self._signal(place, signal.SIGKILL)

    def log(self, job_id: str) -> str:
        """Return the log file."""
        try:
            return (self._folder / job_id / "log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def forget(self, job_id: str) -> None:
        """Remove the job's folder."""
        shutil.rmtree(self._folder / job_id, ignore_errors=True)

    def _status(self, place: Path) -> JobStatus:
        was_stopped = (place / "stopped").exists()
        code = place / "exit_code"
        if code.exists():
            return _ended(int(code.read_text() or 1), was_stopped)
        if self._is_alive(place):
            return JobStatus("running")
        return JobStatus("stopped" if was_stopped else "failed", "the process is gone")

    def _is_alive(self, place: Path) -> bool:
        process = _process_of(place)
        # Process ids are given again: a process that began at another time is another one.
        return process is None or _began(process["pid"]) == process["began"] is not None

    def _signal(self, place: Path, number: signal.Signals) -> None:
        process = _process_of(place)
        if process is not None and self._is_alive(place):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process["pid"], number)


_WAITER = """
import os, signal, subprocess, sys
place, *command = sys.argv[1:]
child = subprocess.Popen(command)
signal.signal(signal.SIGINT, signal.SIG_IGN)
code = child.wait()
with open(os.path.join(place, "exit_code.part"), "w") as file:
    file.write(str(code))
os.replace(os.path.join(place, "exit_code.part"), os.path.join(place, "exit_code"))
"""
"""A process that waits for the job and writes its exit code, also if the service has ended meanwhile."""


def _ended(code: int, was_stopped: bool) -> JobStatus:
    if code == 0:
        return JobStatus("succeeded")
    return JobStatus("stopped" if was_stopped else "failed", f"exit code {code}")


def _process_of(place: Path) -> dict[str, int] | None:
    """Return id and start time of a job's process; None in the moment before they are written."""
    try:
        found: dict[str, int] = json.loads((place / "process").read_text())
    except FileNotFoundError:
        return None
    return found


def _began(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the machine's start; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
