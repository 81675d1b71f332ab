"""Reads a config file: every error names file, line, what was found and what is allowed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autokd.config.data import CocoData, SplitFolders, VocData, YoloData
from autokd.config.detectors import Detector
from autokd.config.examples import or_example
from autokd.config.layouts import KNOWN_LAYOUTS, with_layout
from autokd.config.model import RunConfig
from autokd.config.problems import located_error
from autokd.config.space_section import default_space
from autokd.documents import Document, Location, load_document
from autokd.errors import one_of
from autokd.files import name_problem
from autokd.space import AnySpace, read_space


def load_config(path_or_text: str | Path) -> RunConfig:
    """Read and check a config file, before anything is trained.

    Args:
        path_or_text: path of a YAML file, its text, or the name of a file of the package ("quickstart").

    Returns:
        The configuration as written, with absolute paths. ``autokd.detectors.resolve`` fills in its recipes.

    Raises:
        ConfigError: for an unknown key, a wrong type or range, values that contradict each other, a missing file.
        SpaceError: if ``space`` offers something that no distiller can use, or nothing.
        SpecError: for a misspelled operator or parameter in ``space``.
    """
    document = load_document(or_example(path_or_text))
    space = _read_space(document)
    _require_layout(document)
    try:
        config = RunConfig.model_validate(document.data | {"space": space})
    except ValidationError as error:
        raise located_error(error, document) from None
    for location, teacher in _teachers_of(config, document):
        if not teacher.has_weights and teacher.train is None:
            raise document.error(
                location,
                "the teacher has neither weights nor a training. Give 'checkpoint: FILE' ('weights: COCO_V1' for "
                "torchvision's own detectors), or 'train: {}' to train it here.",
            )
    if not isinstance(config.teacher, tuple) and config.teacher_weights != "equal" and not config.search.promote_after:
        raise document.error(
            ("teacher_weights",),
            f"found {config.teacher_weights!r}, which needs several teachers; there is one teacher in this file. "
            "Remove it, add teachers, or set search.promote_after.",
        )
    config = _with_absolute_paths(config, document)
    if not config.name:
        stem = Path(document.source).stem if document.source != "<text>" else "autokd"
        config = config.model_copy(update={"name": stem if name_problem(stem) is None else "autokd"})
    return config


def load_space(path_or_text: str | Path) -> AnySpace:
    """Read the section ``space`` of a config file, whose other sections may be missing.

    Args:
        path_or_text: path of a YAML file, or its text.

    Returns:
        The space; the default space for a file without the section.

    Raises:
        ConfigError: for a key that no config file has, such as ``sources`` outside ``space``.
        SpaceError: if the space offers something that no distiller can use, or nothing.
        SpecError: for a misspelled operator or parameter.
    """
    document = load_document(or_example(path_or_text))
    space = _read_space(document)
    for key in document.data:
        if key not in RunConfig.model_fields:
            raise document.error((key,), one_of(key, list(RunConfig.model_fields), noun="key"))
    return space


def _read_space(document: Document) -> AnySpace:
    if not isinstance(document.data, dict):
        raise document.error((), "a config file is a mapping with the keys data, teacher and student, and maybe space.")
    if document.data.get("space") is None:
        return default_space()
    return read_space(document.at("space"))


def _require_layout(document: Document) -> None:
    """Check that a section ``data`` without annotation files names a folder whose layout is known."""
    section = document.data.get("data")
    if not isinstance(section, dict) or not isinstance(section.get("root"), str) or {"train", "val"} & section.keys():
        return
    completed = with_layout(section)
    if completed["format"] == "coco" and "train" not in completed:
        root = _existing(Path(section["root"]), document, ("data", "root"), "folder")
        raise document.error(
            ("data", "root"),
            f"{root} has no layout that is known without the keys 'train' and 'val': {KNOWN_LAYOUTS}. Give these keys, "
            "or the folder that holds such a layout.",
        )


def _with_absolute_paths(config: RunConfig, document: Document) -> RunConfig:
    # Workers and later runs have other working directories; the checks name the line that a typing error is in.
    updates: dict[str, Any] = {}
    if isinstance(config.data, (CocoData, VocData, YoloData)):
        root = _existing(config.data.root, document, ("data", "root"), "folder")
        for keys, part, kind in _parts_of(config.data):
            _existing(root / part, document, ("data", *keys), kind)
        updates["data"] = config.data.model_copy(update={"root": root})
    teachers = tuple(
        _with_paths_of(section, document, location) for location, section in _teachers_of(config, document)
    )
    updates["teacher"] = teachers if isinstance(config.teacher, tuple) else teachers[0]
    updates["student"] = _with_paths_of(config.student, document, ("student",))
    return config.model_copy(update=updates)


def _parts_of(data: CocoData | VocData | YoloData) -> Iterator[tuple[tuple[str, ...], Path, str]]:
    """Yield key, path and kind of every file and folder below the root of a set."""
    if data.unlabeled is not None:
        yield ("unlabeled",), data.unlabeled, "folder"
    if isinstance(data, YoloData):
        yield ("file",), data.file, "file"
        return
    if isinstance(data.images, SplitFolders):
        yield from ((("images", key), folder, "folder") for key, folder in data.images if folder is not None)
    elif isinstance(data, CocoData) or data.train.suffix == ".txt":
        yield ("images",), data.images, "folder"
    for key in ("train", "val", "test"):
        part = getattr(data, key)
        if part is not None:
            yield (key,), part, "folder" if isinstance(data, VocData) and part.suffix != ".txt" else "file"


def _with_paths_of(detector: Detector, document: Document, location: Location) -> Detector:
    changed: dict[str, Any] = {}
    if detector.checkpoint is not None:
        section: Any = document.at(*location).data
        key = "checkpoint" if "checkpoint" in section else "weights"
        changed["checkpoint"] = _existing(detector.checkpoint, document, (*location, key), "file")
    for place, file in detector.weight_files().items():
        _existing(file, document, (*location, *place), "file")
    return detector.model_copy(update=changed | detector.absolute_paths())


def _teachers_of(config: RunConfig, document: Document) -> list[tuple[Location, Detector]]:
    """Return every teacher with its place in the file, where a single teacher may be a list of one."""
    if isinstance(document.data["teacher"], list):
        return [(("teacher", i), teacher) for i, teacher in enumerate(config.teachers)]
    return [(("teacher",), config.teachers[0])]


def _existing(path: Path, document: Document, location: Location, kind: str) -> Path:
    # The functions of os.path take names of nobody's home, and ones that are too long, for what is not there.
    full = Path(os.path.abspath(os.path.expanduser(os.path.expandvars(path))))
    if not (os.path.isdir(full) if kind == "folder" else os.path.isfile(full)):
        raise document.error(
            location, f"found {str(path)[:300]!r}, but there is no such {kind}. Paths are seen from {Path.cwd()}."
        )
    return full
