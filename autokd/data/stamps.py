"""Marks by which a changed file is noticed without reading it whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_PIECE_BYTES = 4096
_NUM_PIECES = 3
"""Pieces of an image's sample: its start, its middle, its end. A compressed image that is painted over has another
length or another end (the checksums of a PNG, the remainder of a JPEG's bit stream)."""
_NUM_LARGE_PIECES = 256
"""Pieces of an annotation file's sample, evenly spread: 1 MiB, which is the whole of a small file."""
ABSENT = -1
"""Length in the stamp of a file that does not exist."""


def stamps_of(paths: Sequence[str]) -> NDArray[np.int64]:
    """Return the length in bytes and the time of change in nanoseconds of each file, (n, 2) int64.

    Args:
        paths: n paths; the length of one without a file is ``ABSENT``.
    """
    stamps = np.empty((len(paths), 2), dtype=np.int64)
    for row, path in enumerate(paths):
        try:
            about = os.stat(path)
            stamps[row] = about.st_size, about.st_mtime_ns
        except OSError:
            stamps[row] = ABSENT, 0
    return stamps


def sample_digest(path: Path) -> int:
    """Return 63 bits of a digest of a file's length, start, middle and end.

    Args:
        path: the file.

    Raises:
        OSError: if it cannot be read.
    """
    return int.from_bytes(_sampled(path, _NUM_PIECES).digest()[:8], "big") >> 1


def file_digest_by_sample(path: Path) -> str:
    """Return a digest of a file's path, length, time of change and 256 pieces of its content.

    Args:
        path: the file.

    Raises:
        OSError: if it cannot be read.
    """
    digest = _sampled(path, _NUM_LARGE_PIECES)
    digest.update(repr((os.path.abspath(path), path.stat().st_mtime_ns)).encode())
    return digest.hexdigest()


def _sampled(path: Path, num_pieces: int) -> hashlib.blake2b:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(str(size).encode())
        if size <= num_pieces * _PIECE_BYTES:
            digest.update(file.read())
            return digest
        for piece in range(num_pieces):
            file.seek((size - _PIECE_BYTES) * piece // (num_pieces - 1))
            digest.update(file.read(_PIECE_BYTES))
    return digest
