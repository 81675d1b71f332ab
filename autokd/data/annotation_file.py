"""Reader of COCO annotation files that refuses a broken structure.

Faults are collected, so that one run shows several of them. Each line names the file, the annotation or image by its
id, what was found and the remedy. ``annotations`` handles what COCO's own tools tolerate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autokd.data.image_names import image_name_problem
from autokd.errors import DataError

_SECTIONS = ("images", "annotations", "categories")
_MAX_SHOWN = 5
_LARGEST = 2**63 - 1
"""Largest whole number that arrays hold; JSON has larger ones."""


class Problems:
    """Faults of one file, raised together as one DataError.

    Attributes:
        path: the file.
        lines: one text a fault.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Add a fault; the file's path is put before the text."""
        self.lines.append(f"{self.path}: {line}")

    def raise_if_any(self) -> None:
        """Raise the faults found so far, of which the first few are shown.

        Raises:
            DataError: if there is one.
        """
        if not self.lines:
            return
        more = len(self.lines) - _MAX_SHOWN
        tail = [f"... and {more} more faults in this file."] if more > 0 else []
        raise DataError("\n".join(self.lines[:_MAX_SHOWN] + tail))


def read_annotation_file(path: Path) -> dict[str, Any]:
    """Read a COCO detection set, and check its ids, keys, references and numbers.

    Args:
        path: the JSON file.

    Returns:
        The parsed file. Annotations have ``id``, ``image_id``, ``category_id`` and a ``bbox`` of four finite numbers;
        images have ``id`` and ``file_name``; categories have ``id`` and ``name``.

    Raises:
        DataError: with a list of the faults, if the file is missing or one of this does not hold.
    """
    data = _parse(path)
    problems = Problems(path)
    _check_categories(data["categories"], problems)
    _check_images(data["images"], problems)
    # Raised before the annotations are checked: these refer to images and categories, and would only repeat the faults.
    problems.raise_if_any()
    _check_annotations(data, problems)
    problems.raise_if_any()
    return data


def _parse(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no annotation file, but a folder, a pipe or a device. Correct the file's name.")
    try:
        # "-sig": exporters on Windows put a byte order mark before the JSON.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such annotation file. Correct data.root and the file's name, which is taken from there."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the annotation file cannot be read ({error}).") from None
    try:
        data = json.loads(text)
    except RecursionError:
        raise DataError(f"{path}: lists lie too deep within each other. Export the annotation file again.") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}:{error.colno}: this is no JSON ({error.msg}). "
            "Was the file cut off? Copy or export it again."
        ) from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{path}: holds a number that cannot be read ({error}). Export it again.") from None
    missing = [name for name in _SECTIONS if not isinstance(data, dict) or not isinstance(data.get(name), list)]
    if missing:
        raise DataError(
            f"{path}: no list {' and no list '.join(repr(name) for name in missing)}. A COCO detection file is an "
            "object with the lists 'images', 'annotations' and 'categories': export the set in that format."
        )
    for name in ("images", "categories"):
        if not data[name]:
            raise DataError(f"{path}: the list {name!r} is empty, so there is nothing to learn or to judge.")
    return dict(data)


def _check_categories(categories: list[Any], problems: Problems) -> None:
    _check_keys(categories, "category", {"id": int, "name": str}, problems)
    names = [category.get("name") for category in categories if isinstance(category, dict)]
    for name in (name for name in names if isinstance(name, str)):
        if not name.strip() or any(ord(character) < 32 for character in name):
            problems.add(f"a category is named {name[:80]!r}, which no table can show. Give it a name of letters.")
    for name in _repeated(name.strip() if isinstance(name, str) else name for name in names):
        problems.add(f"two categories are named {name!r}. Merge them, or rename one.")


def _check_images(images: list[Any], problems: Problems) -> None:
    _check_keys(images, "image", {"id": int, "file_name": str}, problems)
    for image in images:
        if not isinstance(image, dict):
            continue
        name = image.get("file_name")
        problem = image_name_problem(name) if isinstance(name, str) else None
        if problem is not None:
            problems.add(
                f"image {image.get('id')!r}: file_name {str(name)[:200]!r} {problem}. Images lie within data.images: "
                "correct the name, or set data.images to the folder above them."
            )
        for key in ("width", "height"):
            value = image.get(key)
            if value is not None and not (_is_number(value) and value >= 1 and value == int(value)):
                problems.add(
                    f"image {image.get('id')!r} ({image.get('file_name')}): {key} is {value!r}, not a number of "
                    "pixels. Correct it, or leave width and height out: they are then read from the file."
                )


def _check_annotations(data: Mapping[str, Any], problems: Problems) -> None:
    annotations = data["annotations"]
    _check_keys(annotations, "annotation", {"id": int, "image_id": int, "category_id": int, "bbox": list}, problems)
    problems.raise_if_any()
    file_of_image = {image["id"]: image["file_name"] for image in data["images"]}
    names = {category["id"]: category["name"] for category in data["categories"]}
    for annotation in annotations:
        image_id, category_id, box = annotation["image_id"], annotation["category_id"], annotation["bbox"]
        where = f"annotation {annotation['id']} of image {file_of_image.get(image_id, image_id)!r}"
        if image_id not in file_of_image:
            problems.add(f"{where}: no image has the id {image_id}. Add the image, or remove the annotation.")
        if category_id not in names:
            known = ", ".join(f"{key} ({name})" for key, name in sorted(names.items())[:20])
            problems.add(
                f"{where}: category_id {category_id} is not one of {known}. Add the category to 'categories', or "
                "correct the annotation."
            )
        if not (len(box) == 4 and all(_is_number(value) for value in box)):
            problems.add(
                f"{where}: bbox {box!r} is not four finite numbers [x, y, width, height] in pixels. "
                "Correct or remove it."
            )
        if annotation.get("iscrowd") not in (None, 0, 1):
            problems.add(f"{where}: iscrowd is {annotation['iscrowd']!r}. It is 0 (one object) or 1 (a crowd region).")


def _check_keys(items: list[Any], noun: str, kinds: Mapping[str, type], problems: Problems) -> None:
    """Check that every item is an object with these keys of these types, and that no two share an id."""
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            problems.add(f"{noun} number {position} is {item!r}, not an object. Export the set again.")
            continue
        name = f"{noun} {item['id']!r}" if "id" in item else f"{noun} number {position}"
        for key, kind in kinds.items():
            if key not in item:
                problems.add(f"{name} has no {key!r}. Add it, or remove the {noun}.")
            # bool is a subclass of int, but true is no id.
            elif not isinstance(item[key], kind) or isinstance(item[key], bool):
                words = {int: "a whole number", str: "a text", list: "a list"}[kind]
                problems.add(f"{name}: {key} is {item[key]!r}, not {words}. Correct it, or remove the {noun}.")
    for repeated in _repeated(item.get("id") for item in items if isinstance(item, dict)):
        problems.add(f"two {noun} entries have the id {repeated}. Give one of them an id of its own, or remove it.")


def _repeated(values: Iterable[Any]) -> list[Any]:
    """Return the values that occur more than once, in order of their second occurrence."""
    seen: set[Any] = set()
    repeated: dict[Any, None] = {}
    for value in values:
        if not isinstance(value, (int, str)):
            continue
        if value in seen:
            repeated[value] = None
        seen.add(value)
    return list(repeated)


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= _LARGEST
    return isinstance(value, float) and math.isfinite(value)
