"""Locks between the processes of a machine, on files beside what they guard; never opened through a link.

The locks are the system's and are freed if the process dies. The files stay, since removing one would let a waiting
process lock a file that has no name anymore.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from autokd.files import refuse_foreign_links

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock of ``path`` inside the block; other processes that ask for it wait.

    The lock is the system's, on a file beside ``path``: it is freed if the process dies. The file stays, since
    removing it would let a waiting process lock a file that has no name anymore. On a system without such locks there
    is no waiting, and the first rename wins (``atomic_folder``).

    Raises:
        OSError: if the file of the lock is a link, or ``path`` is one that another user made.
    """
    with _lock_file(path) as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of ``path`` inside the block if no other process has it.

    Yields:
        Whether it is held. On a system without such locks it always is.

    Raises:
        OSError: as ``exclusive_lock``.
    """
    with _lock_file(path) as lock:
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def shared_lock(path: Path) -> IO[str]:
    """Return the open file of the lock of ``path``, held together with all who ask so, until the file is closed.

    Raises:
        OSError: as ``exclusive_lock``.
    """
    lock = _lock_file(path)
    if fcntl is not None:
        fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def _lock_file(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_foreign_links(path)
    # Appending: the file may hold something if it is not what it seems.
    return open(path.with_name(f".{path.name}.lock"), "a", opener=without_following)


def without_following(path: str, flags: int) -> int:
    """Open a file for ``open(..., opener=without_following)``, if it is no link.

    Args:
        path: the file.
        flags: flags of ``os.open``.

    Raises:
        OSError: if it is a link.
    """
    try:
        return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "this file must not be a link; remove it, and see who made it", path) from error
        raise
