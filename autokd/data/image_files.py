"""What the image files of a split are: looked at once, kept in the cache, and mapped into memory by every process.

Legend: N images.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autokd.data.annotation_file import Problems
from autokd.data.array_store import StoredArrays, obtain_arrays, open_arrays
from autokd.data.columns import AnnotationColumns
from autokd.data.image_folder import ImageFolder
from autokd.data.image_names import require_inside
from autokd.data.images import KINDS, Header, fit_to_frame, read_peak, require_fit
from autokd.data.stamps import sample_digest, stamps_of
from autokd.errors import DataError
from autokd.files import digest_of

FILES_FOLDER = "image_files"
_VERSION = 1
"""Version of the arrays; raised when their content changes."""
_NUM_THREADS = 8
"""Threads that read headers: over a network most of the time is waiting."""
_CHUNK = 64
"""Images that a thread reads at a time."""

ReadHeader = Callable[..., Header]


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Sizes, kinds and samples of the image files of a split, all of which fit their frames.

    Attributes:
        stored_sizes: (N, 2) int32, (height, width) in pixels as stored.
        orientations: (N,) int8, EXIF orientation.
        kinds: (N,) int8, positions in ``images.KINDS``.
        peaks: (N,) int32, greatest value of an image of 16 bits a channel; 0 for the others.
        samples: (N,) int64, digest of each file's length, start, middle and end.
        key: name of the folder in the cache; empty if it is not kept there.
    """

    stored_sizes: NDArray[np.int32]
    orientations: NDArray[np.int8]
    kinds: NDArray[np.int8]
    peaks: NDArray[np.int32]
    samples: NDArray[np.int64]
    key: str

    @property
    def peak(self) -> int:
        """Greatest value of all images of 16 bits a channel; 0 if there is none."""
        return int(self.peaks.max(initial=0))

    def counts(self, sizes: NDArray[np.int64]) -> dict[str, int]:
        """Return the counts of ``DataReport`` that the files decide.

        Args:
            sizes: (N, 2), (height, width) of the frame of each image.
        """
        counts: Counter[str] = Counter()
        is_same = (self.stored_sizes == sizes).all(axis=1)
        for index in np.flatnonzero(~is_same).tolist():
            height, width = self.stored_sizes[index].tolist()
            frame = tuple(sizes[index].tolist())
            fit = fit_to_frame((height, width), int(self.orientations[index]), frame)
            assert fit is not None, "files that do not fit are refused when they are first looked at"
            counts["scaled_images"] += fit.scale
            counts["rotated_images"] += fit.rotate
        turned = int((self.orientations != 1).sum())
        kinds = {kind: int((self.kinds == code).sum()) for code, kind in enumerate(KINDS)}
        return {
            "scaled_images": counts["scaled_images"],
            "rotated_images": counts["rotated_images"],
            "orientation_ignored": turned - counts["rotated_images"],
            "gray_images": kinds["gray"],
            "alpha_images": kinds["alpha"],
            "deep_images": kinds["deep"],
        }


def look_at_files(
    columns: AnnotationColumns,
    folder: ImageFolder,
    annotation_path: Path,
    cache_dir: Path | None,
    read_header: ReadHeader,
) -> ImageFiles:
    """Return what the image files are; open every header if the cache has nothing for these lengths and times.

    Args:
        columns: the annotations.
        folder: where the images lie.
        annotation_path: the annotation file, for errors.
        cache_dir: folder of the cache; None: nothing is kept.
        read_header: reader of one file's header (``images.read_header``).

    Raises:
        DataError: with a list of the images that are missing, broken or of another aspect ratio than their JSON.
    """
    paths = [os.path.join(folder.path, folder.relative(name)) for name in columns.file_names()]
    place = None
    if cache_dir is not None:
        stamps = hashlib.blake2b(stamps_of(paths).tobytes(), digest_size=16).hexdigest()
        key = digest_of(version=_VERSION, annotations=columns.content, folder=str(folder), stamps=stamps)
        place = cache_dir / FILES_FOLDER / key
    return _as_files(
        obtain_arrays(place, _VERSION, lambda: (_look(columns, paths, folder.path, annotation_path, read_header), {}))
    )


def open_files(key: str, cache_dir: Path) -> ImageFiles | None:
    """Return what another process has found; None if the cache lacks it.

    Args:
        key: name of the folder.
        cache_dir: folder of the cache.
    """
    stored = open_arrays(cache_dir / FILES_FOLDER / key, _VERSION)
    return None if stored is None else _as_files(stored)


def _as_files(stored: StoredArrays) -> ImageFiles:
    arrays: dict[str, Any] = dict(stored.arrays)
    return ImageFiles(**arrays, key="" if stored.folder is None else stored.folder.name)


def _look(
    columns: AnnotationColumns, paths: list[str], folder: Path, annotation_path: Path, read_header: ReadHeader
) -> dict[str, NDArray[Any]]:
    frames = columns.sizes.tolist()
    ids = columns.image_ids.tolist()

    def look_at(indices: range) -> list[tuple[Header, int, int] | str]:
        found: list[tuple[Header, int, int] | str] = []
        for index in indices:
            path, (height, width) = Path(paths[index]), frames[index]
            try:
                require_inside(path, folder)
                header = _fitting_header(path, (height, width), read_header)
                found.append((header, read_peak(path) if header.kind == "deep" else 0, sample_digest(path)))
            except (DataError, OSError) as error:
                found.append(f"image {ids[index]}: {error}")
        return found

    chunks = [range(start, min(start + _CHUNK, len(paths))) for start in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        rows = [row for chunk in pool.map(look_at, chunks) for row in chunk]
    problems = Problems(annotation_path)
    for row in rows:
        if isinstance(row, str):
            problems.add(row)
    problems.raise_if_any()
    sound = [row for row in rows if not isinstance(row, str)]
    return {
        "stored_sizes": np.array([header.stored_size for header, _, _ in sound], dtype=np.int32),
        "orientations": np.array([header.orientation for header, _, _ in sound], dtype=np.int8),
        "kinds": np.array([KINDS.index(header.kind) for header, _, _ in sound], dtype=np.int8),
        "peaks": np.array([peak for _, peak, _ in sound], dtype=np.int32),
        "samples": np.array([sample for _, _, sample in sound], dtype=np.int64),
    }


def _fitting_header(path: Path, frame: tuple[int, int], read_header: ReadHeader) -> Header:
    header = read_header(path)
    if fit_to_frame(header.stored_size, header.orientation, frame) is None:
        # A PNG may have its EXIF orientation behind its pixels, where only decoding finds it.
        header = read_header(path, decode=True)
    require_fit(path, header, frame)
    return header
