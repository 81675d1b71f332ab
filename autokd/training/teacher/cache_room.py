"""Room for the caches of teachers: which there are, when each was used last, and which go first.

A process that has a cache open holds its lock together with others; a cache whose lock is free is removed at need.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from autokd.errors import DataError
from autokd.files import META_FILE
from autokd.locks import lock_if_free, shared_lock
from autokd.training.teacher.cache_bytes import GIB

BUILDING = ".building"
"""End of the name of a folder that is being filled, which begins with a dot."""
_LAYOUT = "layout.json"


@dataclass(frozen=True)
class CachedOutputs:
    """A cache of a teacher's outputs on disk.

    Attributes:
        folder: its folder.
        num_bytes: bytes of its files.
        used_s: time at which it was opened last, in seconds since 1970.
        is_whole: whether it is filled; one that is not may be gone on with.
    """

    folder: Path
    num_bytes: int
    used_s: float
    is_whole: bool


def building_folder(folder: Path) -> Path:
    """Return the folder in which a cache is filled before it is renamed."""
    return folder.with_name(f".{folder.name}{BUILDING}")


def hold(folder: Path) -> IO[str] | None:
    """Mark a cache as used now and as open in this process, until the returned file is closed.

    Returns:
        None if the folder cannot be written to, so that nothing can be removed from it either.
    """
    try:
        lock = shared_lock(_use_of(folder))
    except OSError:
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / META_FILE)
    return lock


def stored_outputs(root: Path) -> list[CachedOutputs]:
    """Return the caches below a folder, those that were not used for longest first."""
    found = []
    for folder in root.iterdir() if root.is_dir() else ():
        is_whole = not folder.name.startswith(".")
        if folder.is_dir() and (is_whole or folder.name.endswith((BUILDING, ".damaged", ".part"))):
            found.append(CachedOutputs(folder, _size(folder), _used_s(folder), is_whole))
    return sorted(found, key=lambda each: each.used_s)


def remove(each: CachedOutputs) -> bool:
    """Remove a cache unless a process has it open or fills it; return whether it is gone."""
    name = each.folder.name.removeprefix(".").removesuffix(BUILDING)
    with lock_if_free(_use_of(each.folder.with_name(name))) as is_free:
        if is_free:
            shutil.rmtree(each.folder, ignore_errors=True)
    return not each.folder.exists()


def make_room(root: Path, needed: int, max_bytes: int | None) -> None:
    """Remove caches that were not used for longest until there is room for another one.

    Args:
        root: folder of all caches.
        needed: bytes of the new one.
        max_bytes: ``cache.max_bytes``; None: there is no limit, and nothing is removed.

    Raises:
        DataError: if caches that are in use leave too little.
    """
    if max_bytes is None:
        return
    for each in _oldest(root, lambda total: total + needed > max_bytes):
        remove(each)
    total = sum(each.num_bytes for each in stored_outputs(root))
    if total + needed > max_bytes:
        raise DataError(
            f"{root}: another {needed / GIB:.2f} GiB of teachers' outputs are needed beside {total / GIB:.2f} GiB that "
            f"running trainings have open, and cache.max_bytes allows {max_bytes / GIB:.2f} GiB. Raise it, or set "
            "'teacher_outputs: live' in the recipe."
        )


def _oldest(root: Path, is_too_much: Callable[[int], bool]) -> Iterator[CachedOutputs]:
    found = stored_outputs(root)
    total = sum(each.num_bytes for each in found)
    for each in found:
        if not is_too_much(total):
            return
        yield each
        total -= 0 if each.folder.exists() else each.num_bytes


def days_unused(each: CachedOutputs) -> float:
    """Return the days since a cache was opened."""
    return (time.time() - each.used_s) / 86400


def _use_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.use")


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _used_s(folder: Path) -> float:
    for name in (META_FILE, _LAYOUT, "."):
        with contextlib.suppress(OSError):
            return (folder / name).stat().st_mtime
    return 0.0
