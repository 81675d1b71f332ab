"""The files of a teacher's cache: one array a tap, and a checksum of every row of each, by which damage is found.

``layout.json`` describes the arrays. ``rows.crc`` has an int64 for each row (a view of an image) of each array: 0
until the row is written, then its CRC-32 plus 1. A row's data are written before its checksum, so a build that was
killed goes on where it was; and a row is compared with its checksum when it is first read, so what a power cut or a bad
disk has changed is never believed. ``meta.json`` is written last: a folder without it is no cache.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autokd.files import META_FILE, content_digest, read_meta, write_json_atomically
from autokd.training.teacher.cache_bytes import ArrayForm, reserve
from autokd.training.teacher.cache_key import FORMAT_VERSION, SCALES
from autokd.training.teacher.part import Part

LAYOUT_FILE, CHECKSUM_FILE = "layout.json", "rows.crc"

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """What the arrays of a cache are.

    Attributes:
        leading: axes of images and views: (N, V) of all, (P,) of a part.
        strides: level's name -> stride in pixels.
        input_size_px: height and width that the teacher's maps describe, padding included.
        forms: array's name -> shape and number format.
    """

    leading: tuple[int, ...]
    strides: Mapping[str, int]
    input_size_px: tuple[int, int]
    forms: Mapping[str, ArrayForm]

    @property
    def num_rows(self) -> int:
        """Views of all images."""
        return int(np.prod(self.leading))

    @property
    def file_sizes(self) -> dict[str, int]:
        """File's name -> its size in bytes."""
        sizes = {f"{name}.npy": form.file_bytes(self.leading) for name, form in self.forms.items()}
        return sizes | {CHECKSUM_FILE: 8 * self.num_rows * len(self.forms)}

    def write(self, folder: Path) -> None:
        """Make all files of the cache with their full sizes, and the layout last.

        Raises:
            DataError: if the disk is full.
        """
        for name, form in self.forms.items():
            shape = (*self.leading, *form.shape)
            np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=form.dtype, shape=shape)
        for name, size in self.file_sizes.items():
            with (folder / name).open("ab") as file:
                file.truncate(size)
            reserve(folder / name, size)
        # Pairs, since JSON sorts the keys of a mapping and the order of levels counts.
        about = asdict(self) | {"strides": list(self.strides.items()), "version": FORMAT_VERSION}
        write_json_atomically(folder / LAYOUT_FILE, about)

    @classmethod
    def read(cls, folder: Path) -> Layout | None:
        """Return the layout of a folder whose files have their sizes; None for any other."""
        try:
            data = json.loads((folder / LAYOUT_FILE).read_text())
            if data["version"] != FORMAT_VERSION:
                return None
            forms = {name: ArrayForm(tuple(form["shape"]), form["dtype"]) for name, form in data["forms"].items()}
            height, width = data["input_size_px"]
            strides = {level: int(stride) for level, stride in data["strides"]}
            found = cls(tuple(data["leading"]), strides, (int(height), int(width)), forms)
            sizes = {name: (folder / name).stat().st_size for name in found.file_sizes}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return found if sizes == found.file_sizes else None


class CacheFiles:
    """The open arrays of a cache, row by row."""

    def __init__(self, folder: Path, layout: Layout, mode: Literal["r", "r+"] = "r") -> None:
        """Map the files into memory; nothing is read yet.

        Args:
            folder: a folder with this layout.
            layout: what the files are.
            mode: "r" to read, "r+" to write too.
        """
        self.folder, self.layout = folder, layout
        self._names = tuple(layout.forms)
        self._arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode=mode).reshape(layout.num_rows, *form.shape)
            for name, form in layout.forms.items()
        }
        shape = (layout.num_rows, len(self._names))
        self._checksums_RA = np.memmap(folder / CHECKSUM_FILE, dtype=np.int64, mode=mode, shape=shape)
        self._is_sound_RA = np.zeros(shape, dtype=bool)

    def read(self, name: str, rows: Rows) -> np.ndarray:
        """Return a copy of the rows of an array, as stored."""
        return np.asarray(self._arrays[name][rows])

    def with_scales(self, names: Collection[str]) -> list[str]:
        """Return the names with those of the arrays of their scales."""
        return [each for name in names for each in (name, name + SCALES) if each in self._arrays]

    def write(self, rows: Rows, values: Mapping[str, np.ndarray]) -> None:
        """Write rows of all arrays, then their checksums."""
        for name, array in values.items():
            self._arrays[name][rows] = array
        for position, name in enumerate(self._names):
            self._checksums_RA[rows, position] = [_checksum(self._arrays[name][row]) for row in rows]
        self._is_sound_RA[rows] = False

    def missing(self, rows: Rows) -> bool:
        """Return whether one of the rows was not written yet."""
        return bool((self._checksums_RA[rows] == 0).any())

    def damaged(self, rows: Rows, names: Sequence[str]) -> Rows:
        """Return those of the rows in which an array differs from its checksum; each is compared once."""
        found: set[int] = set()
        distinct = np.unique(rows)
        for name in names:
            position = self._names.index(name)
            for row in distinct[~self._is_sound_RA[distinct, position]]:
                if _checksum(self._arrays[name][row]) == self._checksums_RA[row, position]:
                    self._is_sound_RA[row, position] = True
                else:
                    found.add(int(row))
        return np.array(sorted(found), dtype=np.int64)

    def flush(self) -> None:
        """Hand what was written to the system."""
        for array in (*self._arrays.values(), self._checksums_RA):
            array.flush()


def write_meta(folder: Path, build_s: float) -> None:
    """Declare a folder whose rows are all written a cache.

    Args:
        folder: the folder.
        build_s: seconds in which one process would compute all of it.
    """
    about = {"version": FORMAT_VERSION, "build_s": round(build_s, 3), "rows": content_digest(folder / CHECKSUM_FILE)}
    write_json_atomically(folder / META_FILE, about)


def sound_meta(folder: Path) -> dict[str, Any] | None:
    """Return the meta data of a whole cache whose files have their sizes; None for any other."""
    meta = read_meta(folder)
    if meta is None or meta.get("version") != FORMAT_VERSION or Layout.read(folder) is None:
        return None
    try:
        return meta if content_digest(folder / CHECKSUM_FILE) == meta.get("rows") else None
    except OSError:
        return None


def rows_of(pairs: Sequence[tuple[int, int]], part: Part | None, num_views: int) -> Rows:
    """Return the rows of (image index, view number) pairs.

    Args:
        pairs: the pairs.
        part: the views that the cache holds; None: all.
        num_views: views of each image, if it holds all.

    Raises:
        DataError: if a view is not in the part.
    """
    if part is not None:
        return part.rows(pairs)
    return np.fromiter((image * num_views + view for image, view in pairs), dtype=np.int64, count=len(pairs))


def pairs_of(rows: Rows, part: Part | None, num_views: int) -> list[tuple[int, int]]:
    """Return the (image index, view number) pairs of rows; the inverse of ``rows_of``."""
    codes = rows if part is None else part.codes_P[rows]
    images, views = np.divmod(codes, num_views if part is None else part.num_views)
    return list(zip(images.tolist(), views.tolist()))


def _checksum(row: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(row).data) + 1
