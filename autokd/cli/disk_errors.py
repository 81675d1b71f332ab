"""Sentences for errors of disks, which come from any library and under any class."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from autokd.files import is_full

_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)


def disk_words(error: BaseException) -> str | None:
    """Return what a user can do about an error of a disk; None if the error is of another kind.

    Args:
        error: an exception; those that it was raised from or during count too.
    """
    for each in _chain(error):
        if is_full(each):
            place = getattr(each, "filename", None) or "a folder of the run, its database or the cache"
            return (
                f"{place}: no space is left on the disk. Free some, or move the cache (--cache-dir); what has finished "
                "is kept, and --resume goes on from there."
            )
        if isinstance(each, OSError) and each.errno in _CLOSED and each.filename is not None:
            return (
                f"{each.filename}: cannot be written or read ({each.strerror}). Change its permissions, or give "
                "another folder (--run-dir, --cache-dir)."
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
