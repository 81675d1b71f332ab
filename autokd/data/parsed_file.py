"""A COCO annotation file as arrays, in the order of the file.

A sound file is decoded by msgspec into the fields that AutoKD reads; polygons and masks are skipped, not built. Any
doubt leads to ``annotation_file``, which reads the file again, and either names each fault or tolerates it.

Legend: N images, M annotations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from autokd.data.annotation_file import read_annotation_file
from autokd.data.image_names import image_name_problem
from autokd.errors import DataError

_LARGEST_AREA = 1e18
"""Square pixels above which an area is none: JSON has whole numbers that no float holds."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ImageEntry(Struct, gc=False):
    """An entry of the list ``images``."""

    id: int
    file_name: str
    width: int | None = None
    height: int | None = None


class AnnotationEntry(Struct, gc=False):
    """An entry of the list ``annotations``."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: Any = None
    iscrowd: Any = None


class CategoryEntry(Struct, gc=False):
    """An entry of the list ``categories``."""

    id: int
    name: str


class _Lists(Struct):
    images: list[ImageEntry]
    annotations: list[AnnotationEntry]
    categories: list[CategoryEntry]


class _DoubtError(Exception):
    """The file is not plainly sound."""


@dataclass(frozen=True, eq=False)
class ParsedFile:
    """A checked annotation file: ids are unique, references lead somewhere, numbers are finite.

    Attributes:
        image_ids: (N,) int64.
        file_names: N names.
        sizes: (N, 2) int64, (height, width) in pixels; (0, 0) where the file gives none.
        category_ids: (K,) int64, rising.
        class_names: K names in the order of ``category_ids``.
        image_of: (M,) int64, position of each annotation's image in ``image_ids``.
        rank_of: (M,) int64, position of each annotation's category in ``category_ids``.
        boxes_xywh: (M, 4) float64, as the file has them.
        areas: (M,) float64; NaN where the file gives no positive finite number.
        is_crowd: (M,) bool.
        missing_iscrowd: annotations without ``iscrowd``.
    """

    image_ids: NDArray[np.int64]
    file_names: list[str]
    sizes: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    image_of: NDArray[np.int64]
    rank_of: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    areas: NDArray[np.float64]
    is_crowd: NDArray[np.bool_]
    missing_iscrowd: int


def parse_annotation_file(path: Path) -> ParsedFile:
    """Read a COCO annotation file, and check its ids, keys, references and numbers.

    Args:
        path: the JSON file.

    Raises:
        DataError: with a list of the faults, if the file is missing or something does not hold.
    """
    try:
        _require(path.is_file())  # a pipe would be waited for
        return _to_arrays(_decode(path))
    except (_DoubtError, OSError, msgspec.MsgspecError, UnicodeError, OverflowError, RecursionError):
        lists = _from_objects(read_annotation_file(path))
    try:
        return _to_arrays(lists)
    except (_DoubtError, OverflowError):
        raise DataError(
            f"{path}: an id or a number of pixels is beyond 64 bits. Number images, annotations and categories anew."
        ) from None


def _decode(path: Path) -> _Lists:
    content = path.read_bytes()
    return msgspec.json.decode(content[3:] if content.startswith(_BYTE_ORDER_MARK) else content, type=_Lists)


def _from_objects(data: dict[str, Any]) -> _Lists:
    """Return the lists of a file that ``read_annotation_file`` has checked."""

    def pixels(value: Any) -> int | None:
        return None if value is None else int(value)

    return _Lists(
        [ImageEntry(i["id"], i["file_name"], pixels(i.get("width")), pixels(i.get("height"))) for i in data["images"]],
        [
            AnnotationEntry(a["id"], a["image_id"], a["category_id"], _box(a["bbox"]), a.get("area"), a.get("iscrowd"))
            for a in data["annotations"]
        ],
        [CategoryEntry(c["id"], c["name"]) for c in data["categories"]],
    )


def _box(values: list[Any]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, values)
    return x, y, width, height


def _to_arrays(lists: _Lists) -> ParsedFile:
    images, annotations = lists.images, lists.annotations
    _require(bool(images) and bool(lists.categories))
    _require(all(image_name_problem(image.file_name) is None for image in images))
    categories = sorted(lists.categories, key=lambda category: category.id)
    image_ids = _int_array(image.id for image in images)
    category_ids = _int_array(category.id for category in categories)
    names = tuple(category.name for category in categories)
    annotation_ids = _int_array(annotation.id for annotation in annotations)
    _require(all(len(np.unique(ids)) == len(ids) for ids in (image_ids, category_ids, annotation_ids)))
    _require(len(set(names)) == len(names))
    is_sized = [image.width is not None and image.height is not None for image in images]
    sizes = _int_array(
        value
        for image, sized in zip(images, is_sized)
        for value in ((image.height, image.width) if sized else (0, 0))  # type: ignore[misc]
    ).reshape(-1, 2)
    _require(bool((sizes[np.array(is_sized)] >= 1).all()))
    boxes = np.fromiter(chain.from_iterable(a.bbox for a in annotations), np.float64, 4 * len(annotations))
    _require(bool(np.isfinite(boxes).all()))
    flags = [annotation.iscrowd for annotation in annotations]
    _require(all(flag is None or flag in (0, 1) for flag in flags))
    return ParsedFile(
        image_ids,
        [image.file_name for image in images],
        sizes,
        category_ids,
        names,
        _positions(_int_array(a.image_id for a in annotations), image_ids),
        _positions(_int_array(a.category_id for a in annotations), category_ids),
        boxes.reshape(-1, 4),
        np.array([_area(annotation.area) for annotation in annotations], dtype=np.float64),
        np.array([flag == 1 for flag in flags], dtype=bool),
        sum(flag is None for flag in flags),
    )


def _positions(wanted: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the position in ``ids`` of each wanted id."""
    order = np.argsort(ids)
    places = np.searchsorted(ids[order], wanted).clip(max=len(ids) - 1)
    positions = order[places]
    _require(bool((ids[positions] == wanted).all()))
    return positions


def _area(value: Any) -> float:
    """Return the area in square pixels; NaN if it is no positive number of a usable size."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < _LARGEST_AREA else float("nan")


def _int_array(values: Iterable[Any]) -> NDArray[np.int64]:
    return np.fromiter(values, dtype=np.int64)


def _require(holds: bool) -> None:
    if not holds:
        raise _DoubtError
