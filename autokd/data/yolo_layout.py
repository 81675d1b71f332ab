"""YOLO's layout: ``data.yaml`` names splits and classes, and each image has a text file with a line an object.

A split is a folder of images, a text file that lists images, or several of these. The labels of ``images/a.jpg`` are in
``labels/a.txt``, those of an image that lies in no folder ``images`` beside it. An
image without labels shows no object.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from globox import BoundingBox, ParsingError

from autokd.config import YoloData
from autokd.data.images import read_header
from autokd.data.labeled_images import LabeledImage, ObjectBox, ReadImage, Splits, is_image
from autokd.documents import Document, load_document
from autokd.errors import DataError

_BOX_VALUES = 6
"""Most values of a line that gives a box: class, center, size, confidence. Longer lines are polygons."""


def yolo_splits(data: YoloData) -> tuple[Splits, tuple[str, ...]]:
    """Return the images of each split, and the names of the classes.

    Args:
        data: the section of the configuration.

    Raises:
        DataError: if a split is missing or empty, or the classes have no names.
        ConfigError: if the file is missing, or is no YAML.
    """
    document = load_document(data.root / data.file)
    names = _names(document)
    root = _root(document, data)
    splits: Splits = {}
    for split, keys in {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}.items():
        key = next((key for key in keys if document.data.get(key)), None)
        if key is not None:
            splits[split] = _images(document, key, root)
        elif split != "test":
            raise DataError(
                f"{document.source}: the key {split!r} is missing, which names the folder of the {split} images. Add "
                f"'{split}: FOLDER', relative to the file."
            )
    return splits, names


def read_yolo_image(labeled: LabeledImage, names: tuple[str, ...]) -> ReadImage:
    """Read an image's size and its objects.

    Args:
        labeled: image and labels.
        names: names of the classes by their number.

    Raises:
        DataError: if the image is broken, or a line has no known class or no box.
    """
    header = read_header(labeled.image)
    # Labels refer to the image as it is shown, so that EXIF's rotation counts.
    height, width = header.upright_size
    text = "" if labeled.labels is None else labeled.labels.read_text(encoding="utf-8-sig")
    objects = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{labeled.labels}:{number}"
        is_box = len(line.split()) <= _BOX_VALUES
        try:
            read = BoundingBox.from_yolo_v5 if is_box else BoundingBox.from_yolo_seg
            box = read(line, image_size=(width, height))
            objects.append(ObjectBox(names[_class_number(box.label, len(names))], box.ltrb))
        except (ParsingError, AssertionError, ValueError, IndexError) as error:
            raise DataError(
                f"{where}: found {line.strip()!r} ({error}). A line is 'class x y width height' with the number of the "
                f"class (0 to {len(names) - 1}), the box's center and its size, as parts of the image from 0 to 1; or "
                "'class x1 y1 x2 y2 x3 y3 ...' for a polygon. Correct or remove it."
            ) from None
    return ReadImage(labeled.image, (height, width), tuple(objects))


def _class_number(text: str, count: int) -> int:
    number = int(float(text))
    if not (0 <= number < count and number == float(text)):
        raise ValueError(f"{text} is no class")
    return number


def _names(document: Document) -> tuple[str, ...]:
    found: Any = document.data.get("names")
    if isinstance(found, dict):
        numbered = {str(key): name for key, name in found.items()}
        names = [numbered.get(str(number)) for number in range(len(numbered))]
        names = [] if None in names else names
    else:
        names = found if isinstance(found, list) else []
    if not names or len({str(name) for name in names}) < len(names):
        raise DataError(
            f"{document.where(('names',))}: found {found!r}. 'names' gives every class a name of its own: a list, or "
            "the numbers from 0 with their names."
        )
    return tuple(str(name) for name in names)


def _root(document: Document, data: YoloData) -> Path:
    base = (data.root / data.file).parent
    given = document.data.get("path")
    # A path that an exporter wrote on another machine is of no use; then the file's own folder is the root.
    candidates = [base / str(given)] * bool(given) + [base]
    return next((folder for folder in candidates if folder.is_dir()), base)


def _images(document: Document, key: str, root: Path) -> list[LabeledImage]:
    value = document.data[key]
    found: list[LabeledImage] = []
    for part in value if isinstance(value, list) else [value]:
        place = _existing(root, str(part))
        if place is None:
            raise DataError(
                f"{document.where((key,))}: found {str(part)!r}, but there is no such folder or list of images below "
                f"{root}. Correct it, or the key 'path'."
            )
        if place.is_dir():
            # Sorted, since the order of a folder differs between machines.
            found += [_labeled(path) for path in sorted(place.rglob("*")) if is_image(path)]
        else:
            lines = (line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines())
            found += [_labeled(_listed(root, place, line)) for line in lines if line]
    if not found:
        raise DataError(f"{document.where((key,))}: found {value!r}, in which there is no image. Correct the folder.")
    return found


def _existing(root: Path, part: str) -> Path | None:
    # Roboflow writes '../train/images', though the folder lies beside the file.
    return next((root / way for way in (part, part.removeprefix("../")) if (root / way).exists()), None)


def _listed(root: Path, list_file: Path, line: str) -> Path:
    """Return the path of a line: relative to the list if it begins with a dot, as Ultralytics reads it."""
    return Path(os.path.normpath((list_file.parent if line.startswith("./") else root) / line))


def _labeled(image: Path) -> LabeledImage:
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    labels = Path(*parts).with_suffix(".txt")
    return LabeledImage(image, labels if labels.is_file() else None)
