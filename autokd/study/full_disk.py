"""A full or read-only disk told as one: libraries raise many errors there, of which few name the cause."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autokd.errors import StorageError
from autokd.files import is_full
from autokd.jobs import Outcome

_LEAST_BYTES = 128 * 1024
"""Space below which an error of any kind is taken for that of a full disk: a database needs as much for its journal."""
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def disks_explained(*folders: Path) -> Iterator[None]:
    """Raise a StorageError that names the folder, if the block raises because a disk is full or cannot be written.

    Args:
        folders: folders that the block writes to.

    Raises:
        StorageError: in place of the error of a full or read-only disk.
    """
    try:
        yield
    except Exception as error:
        full = next((folder for folder in folders if _free_bytes(folder) < _LEAST_BYTES), None)
        if full is not None or is_full(error):
            place = full or _folder_of(error, folders)
            raise StorageError(
                f"{place}: the disk is full (no space left): {_first_line(error)}. What has finished is kept. Make "
                "room, then go on with --resume."
            ) from error
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            raise StorageError(
                f"{_folder_of(error, folders)}: cannot be written: {_first_line(error)}. Correct its permissions, or "
                "choose other folders with --run-dir and --cache-dir; then go on with --resume."
            ) from error
        raise


def refuse_full_disk(outcome: Outcome) -> None:
    """End the run if a job failed since a disk was full: the others would fail likewise, and resumed it is run again.

    Args:
        outcome: outcome of any job.

    Raises:
        StorageError: if its failure says so.
    """
    if outcome.cause == "error" and is_full(outcome.message):
        reason = outcome.message.strip().splitlines()[-1]
        raise StorageError(
            f"{outcome.job_id} on {outcome.worker or 'a worker'}: the disk is full (no space left): {reason}. What has "
            "finished is kept. Make room, then go on with --resume."
        )


def require_writable(folder: Path) -> None:
    """Check that files can be written into the cache, before anything is done; nothing is left there.

    Args:
        folder: the cache, which may not exist yet.

    Raises:
        StorageError: if it is a file, belongs to another user, is read-only, or its disk is full.
    """
    place = folder
    while not os.path.lexists(place):
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
    except OSError as error:
        if is_full(error):
            words = f"the disk is full: {_first_line(error)}. Make room, or"
        else:
            words = f"the folder of the cache cannot be written: {_first_line(error)}. Correct its permissions, or"
        raise StorageError(f"{folder}: {words} choose another folder with --cache-dir (or AUTOKD_CACHE).") from error


def _free_bytes(folder: Path) -> float:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return float("inf")


def _folder_of(error: Exception, folders: tuple[Path, ...]) -> Path:
    name = getattr(error, "filename", None)
    found = [folder for folder in folders if isinstance(name, (str, Path)) and Path(name).is_relative_to(folder)]
    return found[0] if found else Path(name) if isinstance(name, (str, Path)) else folders[-1]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(".")
