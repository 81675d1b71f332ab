"""The cleaned annotations of one file as columns, kept in the cache and mapped into memory by every process.

Legend: N images in the order of their ids, M boxes in the order of their images and within one as the file has them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autokd.data.array_store import StoredArrays, obtain_arrays, open_arrays
from autokd.data.box_form import crowd_hint, refuse_other_form, refuse_repeated_files
from autokd.data.geometry import box_areas
from autokd.data.image_folder import find_image_folder
from autokd.data.images import read_header
from autokd.data.parsed_file import ParsedFile, parse_annotation_file
from autokd.data.stamps import file_digest_by_sample, stamps_of
from autokd.files import digest_of

COLUMNS_FOLDER = "annotations"
_VERSION = 1
"""Version of the columns; raised when their content or its cleaning changes."""
_CLIP_NOTICED_PX = 1.0
"""Pixels outside the image beyond which a clipped box is counted; rounding alone makes many boxes a little too wide."""


@dataclass(frozen=True, eq=False)
class AnnotationColumns:
    """All annotations of one file, cleaned.

    Attributes:
        image_ids: (N,) int64, rising.
        sizes: (N, 2) int64, (height, width) in pixels of the frame that boxes refer to.
        box_starts: (N + 1,) int64; image i has the boxes from ``box_starts[i]`` to ``box_starts[i + 1]``.
        boxes_xyxy_px: (M, 4) float64, clipped to the frame.
        ranks: (M,) int64, positions in ``category_ids``.
        is_crowd: (M,) bool.
        areas: (M,) float64, square pixels.
        name_bytes, name_starts: file names in UTF-8, joined; name i from ``name_starts[i]`` to ``name_starts[i + 1]``.
        category_ids: ids of the file's categories, rising.
        class_names: their names.
        counts: irregularities by field of ``DataReport``.
        hints: suspicions about the numbers, a sentence each.
        content: digest of all columns and categories.
        key: name of the folder in the cache; empty if it is not kept there.
    """

    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    box_starts: NDArray[np.int64]
    boxes_xyxy_px: NDArray[np.float64]
    ranks: NDArray[np.int64]
    is_crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    name_bytes: NDArray[np.uint8]
    name_starts: NDArray[np.int64]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    counts: Mapping[str, int]
    hints: tuple[str, ...]
    content: str
    key: str

    @property
    def num_images(self) -> int:
        """Number of images, N."""
        return len(self.image_ids)

    def file_name(self, index: int) -> str:
        """Return ``file_name`` of one image, as the annotation file has it.

        Args:
            index: position of the image.
        """
        return bytes(self.name_bytes[self.name_starts[index] : self.name_starts[index + 1]]).decode(
            errors="surrogatepass"
        )

    def file_names(self) -> list[str]:
        """Return ``file_name`` of all images."""
        content, starts = self.name_bytes.tobytes(), self.name_starts.tolist()
        return [content[start:end].decode(errors="surrogatepass") for start, end in itertools.pairwise(starts)]


def read_columns(annotation_path: Path, images_dir: Path, cache_dir: Path | None) -> AnnotationColumns:
    """Return the columns of an annotation file; make and keep them if the cache has none of this content.

    Args:
        annotation_path: the JSON file.
        images_dir: configured folder of its images, in which the sizes are read that the JSON does not give.
        cache_dir: folder of the cache; None: the columns stay in memory.

    Raises:
        DataError: if the file is missing or broken, or its numbers have another form than COCO's.
    """
    if cache_dir is None or not annotation_path.is_file():  # the parser names a missing file
        return _as_columns(StoredArrays(*_make(annotation_path, images_dir)))
    key = digest_of(version=_VERSION, file=file_digest_by_sample(annotation_path), images=str(images_dir))

    def sizes_are_current(stored: StoredArrays) -> bool:
        """Return whether the images whose sizes were read from the files are the same ones."""
        measured = stored.arrays["measured"]
        if not len(measured):
            return True
        names = _as_columns(stored).file_names()
        folder = find_image_folder(images_dir, annotation_path, names)
        paths = [str(folder.file(names[index])) for index in measured.tolist()]
        return bool((stamps_of(paths) == stored.arrays["measured_stamps"]).all())

    stored = obtain_arrays(
        cache_dir / COLUMNS_FOLDER / key, _VERSION, lambda: _make(annotation_path, images_dir), sizes_are_current
    )
    return _as_columns(stored)


def open_columns(key: str, cache_dir: Path) -> AnnotationColumns | None:
    """Return columns that another process has made; None if the cache lacks them.

    Args:
        key: name of their folder.
        cache_dir: folder of the cache.
    """
    stored = open_arrays(cache_dir / COLUMNS_FOLDER / key, _VERSION)
    return None if stored is None else _as_columns(stored)


def _as_columns(stored: StoredArrays) -> AnnotationColumns:
    arrays = {name: array for name, array in stored.arrays.items() if not name.startswith("measured")}
    about = stored.meta
    return AnnotationColumns(
        **arrays,
        category_ids=tuple(about["category_ids"]),
        class_names=tuple(about["class_names"]),
        counts=about["counts"],
        hints=tuple(about["hints"]),
        content=about["content"],
        key="" if stored.folder is None else stored.folder.name,
    )


def _make(path: Path, images_dir: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    parsed = parse_annotation_file(path)
    refuse_repeated_files(path, parsed)
    by_id = np.argsort(parsed.image_ids)
    names = [parsed.file_names[index] for index in by_id]
    sizes = parsed.sizes[by_id]
    measured = np.flatnonzero((sizes == 0).any(axis=1))
    stamps = np.zeros((0, 2), dtype=np.int64)
    if len(measured):
        folder = find_image_folder(images_dir, path, names)
        paths = [folder.safe_file(names[index]) for index in measured.tolist()]
        stamps = stamps_of([str(file) for file in paths])
        sizes[measured] = [read_header(file).stored_size for file in paths]
    image_of = np.argsort(by_id)[parsed.image_of]
    hints = refuse_other_form(path, parsed.boxes_xywh, sizes[image_of])
    arrays, counts = _cleaned(parsed, image_of, sizes)
    encoded = [name.encode(errors="surrogatepass") for name in names]
    arrays |= {
        "image_ids": parsed.image_ids[by_id],
        "sizes": sizes,
        "name_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        "name_starts": _starts(np.array([len(name) for name in encoded])),
    }
    about = {
        "category_ids": parsed.category_ids.tolist(),
        "class_names": list(parsed.class_names),
        "counts": counts | {"missing_sizes": len(measured)},
        "hints": [*hints, *crowd_hint(counts["crowd_regions"], len(arrays["ranks"]))],
    }
    digest = hashlib.blake2b(repr((about["category_ids"], about["class_names"])).encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    about["content"] = digest.hexdigest()
    return arrays | {"measured": measured, "measured_stamps": stamps}, about


def _cleaned(
    parsed: ParsedFile, image_of: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
    """Drop and clip boxes as ``annotations.read_split`` says, sort them by image, and count.

    Args:
        parsed: the file.
        image_of: position of each annotation's image in the order of ids.
        sizes: (height, width) of each image, in the order of ids.
    """
    frames = sizes[image_of]
    xywh = parsed.boxes_xywh
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    clipped = np.clip(boxes, 0, frames[:, [1, 0, 1, 0]])
    degenerate = (xywh[:, 2:] <= 0).any(axis=1)
    outside = ~degenerate & (box_areas(clipped) == 0)
    kept = ~(degenerate | outside)
    reach = np.abs(boxes - clipped).max(axis=1, initial=0.0)
    no_area = np.isnan(parsed.areas)
    areas = np.where(no_area, box_areas(clipped), parsed.areas)
    trained = np.bincount(image_of[kept & ~parsed.is_crowd], minlength=len(sizes))
    counts = {
        "degenerate_boxes": int(degenerate.sum()),
        "outside_boxes": int(outside.sum()),
        "clipped_boxes": int((kept & (reach > _CLIP_NOTICED_PX)).sum()),
        "crowd_regions": int((kept & parsed.is_crowd).sum()),
        "missing_iscrowd": parsed.missing_iscrowd,
        "missing_areas": int(no_area.sum()),
        "images_without_boxes": int((trained == 0).sum()),
    }
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(image_of[rows], kind="stable")]
    arrays = {
        "box_starts": _starts(np.bincount(image_of[rows], minlength=len(sizes))),
        "boxes_xyxy_px": clipped[rows],
        "ranks": parsed.rank_of[rows],
        "is_crowd": parsed.is_crowd[rows],
        "areas": areas[rows],
    }
    return arrays, counts


def _starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
