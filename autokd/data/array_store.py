"""Folders of NumPy arrays in the cache: made once on a machine, checked when opened, mapped into memory by all.

A folder holds an ``.npy`` file an array, and ``meta.json`` with the length and the checksum of each, written last. A
folder that is missing, cut short, damaged or of another version counts as absent, and is made again.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autokd.files import META_FILE, atomic_folder, read_meta, write_json_atomically
from autokd.locks import exclusive_lock

logger = logging.getLogger("autokd.data")

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class StoredArrays:
    """Arrays by name, with what describes them.

    Attributes:
        arrays: read-only; maps of the files, or plain memory if the cache could not be written.
        meta: plain data, as it was given to ``obtain_arrays``.
        folder: the folder in the cache; None if the cache could not be written, or is not used.
    """

    arrays: Mapping[str, NDArray[Any]]
    meta: Mapping[str, Any]
    folder: Path | None = None


def open_arrays(folder: Path, version: int) -> StoredArrays | None:
    """Open a folder of arrays.

    Args:
        folder: the folder.
        version: version that its content must be of.

    Returns:
        The arrays, mapped into memory; None if the folder is missing, damaged, or of another version.
    """
    meta = read_meta(folder)
    if meta is None or meta.get("version") != version:
        return None
    arrays: dict[str, NDArray[Any]] = {}
    try:
        for name, about in meta["arrays"].items():
            path = folder / f"{name}.npy"
            if path.stat().st_size != about["bytes"] or _checksum(path) != about["checksum"]:
                return None
            # An empty array cannot be mapped.
            arrays[name] = np.asarray(np.load(path, mmap_mode="r" if about["mapped"] else None))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return StoredArrays(arrays, meta["about"], folder)


def obtain_arrays(
    folder: Path | None,
    version: int,
    make: Callable[[], tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]],
    is_current: Callable[[StoredArrays], bool] = lambda _: True,
) -> StoredArrays:
    """Open a folder of arrays; make it first if it is absent. One process makes it, the others wait.

    Args:
        folder: the folder, named by its content; None: nothing is kept.
        version: version of the content.
        make: returns the arrays by name, and plain data that describes them.
        is_current: whether what is there may be used.

    Returns:
        The arrays. If the cache cannot be written they stay in this process's memory, and a warning says so.
    """
    if folder is None:
        return StoredArrays(*make())
    found = open_arrays(folder, version)
    if found is not None and is_current(found):
        return found
    with _lock_if_writable(folder):
        found = open_arrays(folder, version)
        if found is not None and is_current(found):
            return found
        arrays, about = make()
        try:
            # What is there is damaged, outdated, or of another version; a rename onto it would fail.
            shutil.rmtree(folder, ignore_errors=True)
            with atomic_folder(folder) as temporary:
                _write(temporary, version, arrays, about)
            found = open_arrays(folder, version)
        except OSError as error:
            logger.warning(
                "%s cannot be written (%s): each process reads the annotations by itself, which takes longer. Give a "
                "--cache-dir that can be written.",
                folder,
                error,
            )
            found = None
        return found or StoredArrays(arrays, about)


def _write(folder: Path, version: int, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    listed: dict[str, Any] = {}
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        np.save(path, array, allow_pickle=False)
        listed[name] = {"bytes": path.stat().st_size, "checksum": _checksum(path), "mapped": array.size > 0}
    write_json_atomically(folder / META_FILE, {"version": version, "arrays": listed, "about": dict(about)})


@contextmanager
def _lock_if_writable(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        # A read-only cache has no lock; then each process makes the arrays for itself.
        with contextlib.suppress(OSError):
            stack.enter_context(exclusive_lock(folder))
        yield


def _checksum(path: Path) -> int:
    """Return the CRC-32 of a file, read block by block: mapped pages would count as this process's memory."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            value = zlib.crc32(block, value)
    return value
