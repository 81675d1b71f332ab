"""Sizes of a cache's files, exact to the byte and known before the first byte is written.

A tap of one image takes the product of its shape times the bytes of a number: 2 x C x H x W for a level of the pyramid
(float16), 2 x A x K for class logits, 4 x A x 4 for boxes (float32), 2 x A x 4 x E for edge logits. With int8 it is 1
in place of 2, and a file of scales has 4 bytes a channel (class, bin). A file has ``num_views`` of these behind a
header of NumPy's, a multiple of 64 bytes.

Legend: C channels, H x W cells, A candidate boxes, K classes, E bins.
"""

from __future__ import annotations

import io
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autokd.errors import DataError
from autokd.training.teacher.cache_key import LEVEL_PREFIX, SCALES, dtype_of

USABLE_SHARE = 0.95
"""Share of the free space that caches may take."""

GIB = 2**30


@dataclass(frozen=True)
class ArrayForm:
    """Shape and number format of one tap of one image.

    Attributes:
        shape: shape without the axes of images and views.
        dtype: name of the number format: "float16", "int8" or "float32".
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes_per_view(self) -> int:
        """Bytes of one image in one view."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    def file_bytes(self, leading: tuple[int, ...]) -> int:
        """Return the size of the whole file.

        Args:
            leading: axes of images and views: (N, V) of a whole plan, (P,) of a part.
        """
        header = io.BytesIO()
        shape = (*leading, *self.shape)
        described = {"descr": np.dtype(self.dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
        return header.tell() + math.prod(leading) * self.bytes_per_view


def array_forms(shapes: Mapping[str, tuple[int, ...]], dtype: str = "float16") -> dict[str, ArrayForm]:
    """Return the form of each file of a cache.

    Args:
        shapes: array's name ("level.p3", "class_logits", ...) -> shape of one image's tap.
        dtype: number format of all taps but boxes; arrays of int8 have another one of scales beside them.
    """
    found: dict[str, ArrayForm] = {}
    for name, shape in shapes.items():
        found[name] = ArrayForm(tuple(shape), dtype_of(name, dtype).name)
        if found[name].dtype == "int8":
            found[name + SCALES] = ArrayForm(scales_shape(name, tuple(shape)), "float32")
    return found


def scales_shape(array: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an array's scales of one image: one a channel of a map, else one an entry of the last axis.

    Args:
        array: name of the array.
        shape: shape of one image's tap.
    """
    if array.startswith(LEVEL_PREFIX):
        return (shape[0], *(1 for _ in shape[1:]))
    return (*(1 for _ in shape[:-1]), shape[-1])


def cache_bytes(forms: Mapping[str, ArrayForm], leading: tuple[int, ...]) -> int:
    """Return the bytes of all files of a cache.

    Args:
        forms: form of each file.
        leading: axes of images and views: (N, V) of a whole plan, (P,) of a part.
    """
    return sum(form.file_bytes(leading) for form in forms.values())


def require_room(folder: Path, needed: int, what: str, remedy: str) -> None:
    """Refuse files that the disk has no room for.

    Args:
        folder: folder to write to; it may not exist yet.
        needed: bytes to write.
        what: the files, for the error.
        remedy: what the user does instead, for the error.

    Raises:
        DataError: if the free space is too small.
    """
    free = free_bytes(folder)
    if needed > USABLE_SHARE * free:
        raise DataError(f"{folder}: {what} need {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free. {remedy}")


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that holds a folder, which may not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def reserve(path: Path, size: int) -> None:
    """Have the disk set aside all blocks of a file, so that no later write to it can fail for lack of space.

    A write through a memory map to a full disk ends the process (SIGBUS) without a message.

    Args:
        path: the file, which exists.
        size: its size in bytes.

    Raises:
        DataError: if the disk is full.
    """
    if not hasattr(os, "posix_fallocate"):  # not on macOS
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno in (28, 122):  # ENOSPC, EDQUOT; a file system that cannot reserve is no error
                raise DataError(
                    f"{path}: the disk has no room for {size / GIB:.1f} GiB of the teacher's outputs "
                    f"({error.strerror}). Free some space, or move the cache (--cache-dir)."
                ) from None
