"""Temporary names of files and folders, and the removal of what killed processes left under them.

A name says which process made it, so that another one of the same machine knows whether it still writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_ABANDONED_S = 24 * 3600
"""Age after which a temporary file of another machine belongs to a process that was killed."""
_TEMPORARY = re.compile(r"\..+\.((?P<mark>[0-9a-f]{6}-\d+)-)?[0-9a-f]+\.part", re.DOTALL)
"""A temporary name: of the file, machine, process, random. Older versions wrote neither machine nor process."""


def is_temporary(path: Path) -> bool:
    """Return whether a file or folder bears a temporary name of this module.

    Args:
        path: the file or folder.
    """
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_temporary(folder: Path) -> None:
    """Remove what killed processes left half written in a folder that this process alone writes to.

    Args:
        folder: the folder; everything below it is looked at.
    """
    for part in [path for path in folder.rglob(".*.part") if is_temporary(path)]:
        _remove(part)


def remove_abandoned(folder: Path, pattern: str = "**/.*.part") -> None:
    """Remove what killed processes left half written in a folder that other processes write to at this moment.

    Of this machine's processes those that are gone left it; of another machine's, those that have written nothing for a
    day, by the clock of the file system.

    Args:
        folder: the folder. One that does not exist, or cannot be written, is left alone.
        pattern: glob of the names that are looked at; by default all below the folder.
    """
    for part in [path for path in folder.glob(pattern) if is_temporary(path)]:
        # Another process may remove the same one at the same time, or finish and rename it.
        with contextlib.suppress(OSError):
            is_gone = _writer_is_gone(part)
            if is_gone or (is_gone is None and _age_s(part) > _ABANDONED_S):
                _remove(part)


def temporary_name(path: Path) -> Path:
    """Return a new temporary name beside a file or folder, which cannot be guessed.

    Args:
        path: the file or folder that is going to be written.
    """
    return path.with_name(f".{path.name}.{process_mark()}-{uuid.uuid4().hex[:8]}.part")


def process_mark() -> str:
    """Return "MACHINE-PID", by which ``maker_is_gone`` knows the process that made something."""
    return f"{_machine()}-{os.getpid()}"


def maker_is_gone(mark: str) -> bool | None:
    """Return whether the process of a mark has ended; None: it ran on another machine.

    Args:
        mark: its ``process_mark``.
    """
    machine, _, pid = mark.partition("-")
    return not is_running(int(pid)) if machine == _machine() and pid.isdigit() else None


_own_folders: set[Path] = set()


@contextmanager
def own_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make a folder for the time of the block that only this user can enter; those of dead processes are removed.

    Args:
        parent: folder to make it in; None: the system's folder for temporary files.
    """
    parent = parent or Path(tempfile.gettempdir())
    for other in parent.glob(f"{_PREFIX}*-*-*"):
        mark = other.name.removeprefix(_PREFIX).rpartition("-")[0]
        with contextlib.suppress(OSError):
            if other.stat().st_uid == _user() and maker_is_gone(mark):
                _remove(other)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{process_mark()}-", dir=parent))
    _own_folders.add(folder)
    try:
        yield folder
    finally:
        _own_folders.discard(folder)
        shutil.rmtree(folder, ignore_errors=True)


def remove_own_folders() -> None:
    """Remove the folders of ``own_folder`` that this process has not left; for a process that ends at once."""
    for folder in tuple(_own_folders):
        shutil.rmtree(folder, ignore_errors=True)


_PREFIX = "autokd-"


def _user() -> int | None:
    return os.geteuid() if hasattr(os, "geteuid") else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _age_s(part: Path) -> float:
    """Return the seconds since something was written there, by the clock of the file system: ours may differ."""
    probe = temporary_name(part)
    probe.touch()
    try:
        now_s = probe.stat().st_mtime
    finally:
        probe.unlink()
    return now_s - max(file.stat().st_mtime for file in (part, *part.rglob("*")))


def _writer_is_gone(part: Path) -> bool | None:
    found = _TEMPORARY.fullmatch(part.name)
    return None if found is None or found["mark"] is None else maker_is_gone(found["mark"])


def is_running(pid: int) -> bool:
    """Return whether a process of this machine runs; one that waits to be buried does not.

    Args:
        pid: number of the process.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True


@cache
def _machine() -> str:
    """Return six digits for the processes that see each other's numbers: of one boot, and of one container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:6]
