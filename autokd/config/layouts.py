"""Recognizes the layouts in which detection sets are published, from the names of files and folders alone.

What is recognized becomes keys of the section ``data``, so that a configuration that is written out states them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROBOFLOW_FILE = "_annotations.coco.json"
"""Name that Roboflow gives to the annotation file in each split's folder."""
_SPLIT_FOLDERS = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}
"""Split -> names of its folder in an export."""
_COCO_PREFIX = "instances_"

KNOWN_LAYOUTS = (
    "COCO (annotations/instances_train2017.json, train2017/), Roboflow's export (train/_annotations.coco.json), "
    "Pascal VOC (ImageSets/Main/train.txt, Annotations/; or train/*.xml), YOLO (data.yaml)"
)
"""The layouts, for errors."""


def with_layout(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section ``data`` with the keys that the layout of its folder decides.

    Args:
        section: the section as written.

    Returns:
        The section with its format. Keys that it has are kept. If no layout is recognized, it is the section in COCO's
        format, or in the format that it has.
    """
    root = section.get("root")
    # The functions of os.path take names of nobody's home, and ones that are too long, for what is not there.
    if isinstance(root, (str, Path)) and os.path.isdir(full := os.path.expanduser(os.path.expandvars(root))):
        section = _completed(section, Path(full))
    return {"format": "coco"} | dict(section)


def _completed(section: Mapping[str, Any], root: Path) -> dict[str, Any]:
    asked = section.get("format")
    if "train" in section:
        if asked in (None, "coco") and "images" not in section:
            return dict(section) | _folders_of_files(section, root)
        return dict(section)
    for name, recognize in _LAYOUTS:
        if asked in (None, name) and (found := recognize(root)) is not None:
            return {"format": name} | found | dict(section)
    return dict(section)


def _coco_layout(root: Path) -> dict[str, Any] | None:
    """Recognize COCO's own layout, of any year: annotations/instances_trainYEAR.json, trainYEAR/."""
    found: dict[str, str] = {}
    for split in ("train", "val", "test"):
        # The newest year, if there are several. COCO's own test files have no boxes, and another name.
        files = sorted((root / "annotations").glob(f"{_COCO_PREFIX}{split}*.json"))
        files = [path for path in files if _image_folder(root, path) is not None]
        if files:
            found[split] = files[-1].relative_to(root).as_posix()
    if not {"train", "val"} <= found.keys():
        return None
    return found | _folders_of_files(found, root)


def _roboflow_layout(root: Path) -> dict[str, Any] | None:
    folders = {split: _first(root, names, ROBOFLOW_FILE) for split, names in _SPLIT_FOLDERS.items()}
    present = {split: name for split, name in folders.items() if name is not None}
    if not {"train", "val"} <= present.keys():
        return None
    return {"images": present} | {split: f"{name}/{ROBOFLOW_FILE}" for split, name in present.items()}


def _voc_layout(root: Path) -> dict[str, Any] | None:
    lists = root / "ImageSets" / "Main"
    if os.path.isdir(root / "Annotations") and all(os.path.isfile(lists / f"{name}.txt") for name in ("train", "val")):
        return {"test": "ImageSets/Main/test.txt"} if os.path.isfile(lists / "test.txt") else {}
    folders = {split: _first(root, names, "*.xml") for split, names in _SPLIT_FOLDERS.items()}
    present = {split: name for split, name in folders.items() if name is not None}
    return present if {"train", "val"} <= present.keys() else None


def _yolo_layout(root: Path) -> dict[str, Any] | None:
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if os.path.isfile(root / name):
            return {} if name == "data.yaml" else {"file": name}
    return None


# YOLO last: an export to several formats at once may have a data.yaml beside COCO's files.
_LAYOUTS = (("coco", _coco_layout), ("coco", _roboflow_layout), ("voc", _voc_layout), ("yolo", _yolo_layout))


def _folders_of_files(section: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Return ``images`` for given annotation files, if the root has one a split and none for all."""
    if os.path.isdir(root / "images"):
        # Names may begin with the split's folder or not; the data layer, which knows them, finds images either way.
        return {}
    folders = {}
    for split in ("train", "val", "test"):
        if section.get(split) is not None:
            folder = _image_folder(root, root / str(section[split]))
            if folder is None:
                return {}
            folders[split] = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)
    return {"images": folders}


def _image_folder(root: Path, file: Path) -> Path | None:
    """Return the folder of an annotation file's images: named like the file, or its own if Roboflow named the file."""
    stem = file.stem.removeprefix(_COCO_PREFIX)
    if file.name == ROBOFLOW_FILE:
        return file.parent
    return next((folder for folder in (root / stem, root / "images" / stem) if os.path.isdir(folder)), None)


def _first(root: Path, names: tuple[str, ...], pattern: str) -> str | None:
    """Return the first of some folders that holds a file of a pattern."""
    return next((name for name in names if next((root / name).glob(pattern), None) is not None), None)
