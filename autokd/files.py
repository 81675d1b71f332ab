"""Files and folders that appear whole or not at all, and digests of content.

Everything under the cache and the run directory is written under a temporary name and then renamed, so that a reader
sees the old content or the new, and an interrupted write is never taken for a finished one.

Caches are shared on machines with several users, where one may plant a link for another to write through. Temporary
names cannot be guessed, a rename replaces a link instead of following it, and content is looked for through links of
this user and the system's alone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autokd.temporary import remove_abandoned, temporary_name

META_FILE = "meta.json"
"""Name of the file that describes a cached folder."""

_DIGEST_LENGTH = 16
"""Hexadecimal digits of a digest, 64 bits: enough that two of the thousands in a cache do not meet by chance."""

_BLOCK_BYTES = 1 << 20


# ------------------------------------------------------------------------------------------- digests


def digest_of_blocks(blocks: Iterable[bytes]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of ``blocks``, joined."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()[:_DIGEST_LENGTH]


def text_digest(text: str) -> str:
    """Return the digest of a text in UTF-8: 16 hexadecimal digits."""
    return digest_of_blocks([text.encode()])


def digest_of(**parts: Any) -> str:
    """Return the digest of named values.

    Args:
        parts: values that JSON knows; anything else (a path) enters as its ``str``.

    Returns:
        16 hexadecimal digits, equal for equal parts in any order.
    """
    return text_digest(json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str))


def content_digest(path: Path) -> str:
    """Return the digest of a file's content: 16 hexadecimal digits.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        return digest_of_blocks(iter(lambda: file.read(_BLOCK_BYTES), b""))


# --------------------------------------------------------------------------------------------- files


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Replace ``path`` by a file that is written in the block.

    Yields:
        The temporary path, in the same folder, to write to. It is renamed to ``path`` at the end of the block, and
        removed if the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        # A rename may reach the disk before the content does: after a power cut the file would be whole by its name
        # and empty.
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; folders above it are made."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text in UTF-8 whole or not at all; folders above it are made."""
    write_bytes_atomically(path, text.encode())


def write_json_atomically(path: Path, data: Any) -> None:
    """Write ``data`` as JSON with sorted keys, whole or not at all."""
    write_text_atomically(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def copy_file_atomically(source: Path, target: Path) -> None:
    """Copy a file's content, whole or not at all; folders above ``target`` are made."""
    with atomic_file(target) as temporary:
        shutil.copyfile(source, temporary)


# --------------------------------------------------------------------------------------------- names

_LONGEST_NAME_BYTES = 120
"""Longest name of a run: its folder's name may get a distiller's after it, of at most 255 bytes together."""


def name_problem(name: str) -> str | None:
    """Return why a name cannot be that of a file or folder, or None: it must be one component of a path.

    Args:
        name: name from a file that anyone may have written.
    """
    if not name or name in (".", ".."):
        return "is no name of a folder"
    if "/" in name or "\\" in name:
        return "has a slash, so that it would lead elsewhere"
    if any(unicodedata.category(character).startswith("C") for character in name):
        return "has a control character"
    if name != name.strip() or name.startswith(("-", "~")):
        return "begins or ends with a space, or begins with a hyphen or ~"
    if len(name.encode(errors="replace")) > _LONGEST_NAME_BYTES:
        return f"is longer than {_LONGEST_NAME_BYTES} bytes"
    return None


# ------------------------------------------------------------------------------------------- folders


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make the folder ``path``, filled in the block.

    If another process makes it first, its folder stays and this one's is dropped: folders are named by their content,
    so both hold the same.

    Yields:
        An empty temporary folder to fill. It is renamed to ``path`` at the end of the block, and removed if the block
        raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_foreign_links(path)
    remove_abandoned(path.parent, f".{path.name}.*.part")
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        publish_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish_folder(temporary: Path, path: Path) -> None:
    """Rename a finished folder to its name, after all of it has reached the disk.

    Args:
        temporary: the folder; it stays if ``path`` is there already.
        path: its name, in the same folder.
    """
    for part in (*temporary.rglob("*"), temporary):
        _sync(part)
    try:
        temporary.rename(path)
    except OSError:
        if not path.is_dir():
            raise
    _sync(path.parent)


def move_aside(path: Path) -> Path | None:
    """Rename a damaged file or folder, so that it can be made again, and looked at; None if it is not there.

    Only the last damaged one of a name is kept.
    """
    aside = path.with_name(f".{path.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        os.replace(path, aside)
    except FileNotFoundError:
        return None
    return aside


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # file systems that cannot do it for folders
            raise
    finally:
        os.close(number)


def read_meta(folder: Path) -> dict[str, Any] | None:
    """Return the content of the folder's ``meta.json``; None if it is missing, damaged, or no mapping."""
    try:
        data = json.loads((folder / META_FILE).read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def make_private_folder(path: Path) -> None:
    """Make a folder that only this user can enter; one that exists keeps its permissions.

    Args:
        path: the folder; those above it are made with the usual permissions.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)


def refuse_foreign_links(path: Path) -> None:
    """Refuse a path that is, or lies in, a link of another user's: whoever made it chooses what is read or written.

    Args:
        path: a file or folder of a cache, which may not exist yet.

    Raises:
        PermissionError: if it is.
    """
    if not hasattr(os, "geteuid"):
        return
    for part in (path, path.parent):
        with contextlib.suppress(FileNotFoundError):
            about = os.lstat(part)
            if stat.S_ISLNK(about.st_mode) and about.st_uid not in (0, os.geteuid()):
                raise PermissionError(
                    errno.EPERM,
                    "another user has put a link in this place; remove it, or choose another folder",
                    str(part),
                )


_FULL = ("database or disk is full", "no space left", "disk full", "could not extend file")
_FULL_OF_TORCH = ("pytorchstreamwriter failed writing", "disk quota exceeded", "file too large")


def is_full(error: BaseException | str) -> bool:
    """Return whether an error, or its text, says that a disk or a quota is used up.

    Args:
        error: the error, or its message: libraries give words of the system, of a database or of torch alone.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return any(words in str(error).lower() for words in (*_FULL, *_FULL_OF_TORCH))
