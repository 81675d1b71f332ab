"""Reads a space file into a RunConfig: every error names file, line, what was found and what is allowed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from autokd.config.data import CocoData
from autokd.config.detectors import Detector, DetectorSection, TeacherTag, section_classes
from autokd.config.model import RunConfig
from autokd.documents import Document, Location, format_location, load_document
from autokd.errors import ConfigError, one_of
from autokd.space import Space, space_from_document


def load_config(path_or_text: str | Path) -> RunConfig:
    """Read and check a space file, paths made absolute (seen from the working directory).

    Raises ConfigError (SpaceError, SpecError for the space's part) before anything is trained: unknown key,
    wrong type or range, misspelt operator, impossible combination, empty range, missing path.
    """
    document = load_document(path_or_text)
    if not isinstance(document.data, dict):
        raise document.error((), "a space file is a mapping with data, teacher and student.")
    space = _space_of(document)
    try:
        config = RunConfig.model_validate(document.data | {"space": space})
    except ValidationError as error:
        raise _located(error, document) from None
    for location, teacher in _teachers_of(config):
        if teacher.checkpoint is None and teacher.train is None:
            raise document.error(
                location,
                "the teacher has neither weights nor a training. Give 'checkpoint: FILE', or 'train: {}' to train it "
                "here.",
            )
    if not isinstance(config.teacher, tuple) and config.teacher_factors != "equal" and not config.search.promote_after:
        raise document.error(
            ("teacher_factors",),
            "there is one teacher, which shares with nobody. Leave it out, list more teachers, or give "
            "search.promote_after.",
        )
    config = _with_absolute_paths(config, document)
    if not config.name:
        stem = Path(document.source).stem if document.source != "<text>" else "autokd"
        config = config.model_copy(update={"name": stem})
    return config


def load_space(path_or_text: str | Path) -> Space:
    """Return the space of a space file (of its ``space`` section; the default space where it has none).

    ConfigError for a key that no space file has: what stands one level too high would go unheard.
    """
    document = load_document(path_or_text)
    for key in document.data if isinstance(document.data, dict) else ():
        if key not in RunConfig.model_fields:
            raise document.error((key,), one_of(key, list(RunConfig.model_fields), noun="key"))
    return _space_of(document)


def _space_of(document: Document) -> Space:
    if not isinstance(document.data, dict):
        raise document.error((), "a space file is a mapping; its key 'space' holds the tree of choices.")
    if "space" not in document.data:
        return space_from_document(Document({}, document.source))
    return space_from_document(document.at("space"))


def _with_absolute_paths(config: RunConfig, document: Document) -> RunConfig:
    updates: dict[str, Any] = {}
    if isinstance(config.data, CocoData):
        root = _existing(config.data.root, document, ("data", "root"), "folder")
        for key in ("images", "train", "val", "test"):
            part = getattr(config.data, key)
            if part is not None:
                _existing(root / part, document, ("data", key), "folder" if key == "images" else "file")
        updates["data"] = config.data.model_copy(update={"root": root})
    teachers = tuple(_with_paths_of(section, document, location) for location, section in _teachers_of(config))
    updates["teacher"] = teachers if isinstance(config.teacher, tuple) else teachers[0]
    updates["student"] = _with_paths_of(config.student, document, ("student",))
    return config.model_copy(update=updates)


def _with_paths_of(detector: Detector, document: Document, location: Location) -> Detector:
    changed: dict[str, Any] = {}
    if detector.checkpoint is not None:
        place = _written((*location, "checkpoint"), document)
        changed["checkpoint"] = _existing(detector.checkpoint, document, place, "file")
    return detector.model_copy(update=changed | detector.absolute_paths())


def _teachers_of(config: RunConfig) -> list[tuple[Location, Detector]]:
    """Every teacher with its place in the file."""
    if not isinstance(config.teacher, tuple):
        return [(("teacher",), config.teacher)]
    return [(("teacher", i), teacher) for i, teacher in enumerate(config.teacher)]


def _written(location: Location, document: Document) -> Location:
    """The place as the user wrote it: a list of one teacher is read as that one."""
    is_within_a_teacher = location[0] == "teacher" and len(location) > 1 and not isinstance(location[1], int)
    is_listed = is_within_a_teacher and ("teacher", 0) in document.lines
    return ("teacher", 0, *location[1:]) if is_listed else location


def _existing(path: Path, document: Document, location: Location, kind: str) -> Path:
    full = Path(os.path.expandvars(path)).expanduser()
    full = Path(os.path.abspath(full))
    if not (full.is_dir() if kind == "folder" else full.is_file()):
        raise document.error(
            location, f"found {str(path)!r}, but there is no such {kind}. Paths are seen from {Path.cwd()}."
        )
    return full


def _located(error: ValidationError, document: Document) -> ConfigError:
    messages = []
    for problem in error.errors():
        location, model = _real_location(problem["loc"])
        location = _written(location, document)
        if location[0] == "proxy" and len(location) > 1 and location[:2] not in document.lines:
            continue  # inherited from ``full``, where the same problem is named
        if problem["type"] == "extra_forbidden":
            allowed = _sibling_keys(model)
            text = one_of(location[-1], allowed, noun="key") if allowed else f"unknown key {location[-1]!r}."
        elif problem["type"] == "missing":
            text = f"is missing. Give {format_location(location)!r}."
        elif problem["type"] == "literal_error":
            allowed = [part.strip(" '") for part in problem["ctx"]["expected"].replace(" or ", ", ").split(",")]
            text = one_of(problem["input"], allowed)
        elif problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
            context = problem.get("ctx", {})
            key = context.get("discriminator", "format").strip("'")
            tags = context.get("expected_tags", "'shapes', 'coco'").replace("'", "").split(", ")
            location = (*location, key)
            text = one_of(context["tag"], tags) if "tag" in context else f"is missing. It is one of {', '.join(tags)}."
        elif problem["type"] == "value_error":
            text = str(problem["ctx"]["error"])
        else:
            text = f"found {problem['input']!r}: {problem['msg']}."
        messages.append(str(document.error(location, text)))
    return ConfigError("\n".join(dict.fromkeys(messages)))


_TEACHER_TAGS = [(1, tag) for tag in get_args(TeacherTag)]
"""(place in a path, key): what pydantic adds where a teacher may be one or several."""


def _real_location(loc: tuple[int | str, ...]) -> tuple[Location, type[BaseModel] | None]:
    """Drop what pydantic adds to a path (union tags, type names); return also the model that holds the last key."""
    loc = tuple(key for i, key in enumerate(loc) if (i, key) not in _TEACHER_TAGS)
    location: tuple[int | str, ...] = ()
    model: type[BaseModel] | None = RunConfig
    annotation: Any = None
    for i, key in enumerate(loc):
        fields = model.model_fields if model is not None else {}
        is_last = i == len(loc) - 1
        if isinstance(key, int):  # an item of a list: the tag that follows tells its model
            location = (*location, key)
            model = None if is_last else _model_of(annotation, loc[i + 1])
            continue
        if model is not None and key not in fields and not is_last:
            continue  # a union's tag
        location = (*location, key)
        if not is_last:
            annotation = fields[key].annotation if key in fields else None
            model = _model_of(annotation, loc[i + 1])
    return location, model


def _model_of(annotation: Any, tag: int | str) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not DetectorSection:
        return annotation
    candidates = [a for a in _flattened(annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
    for candidate in candidates:
        for field in ("format", "framework"):
            if field in candidate.model_fields and tag in _literals(candidate.model_fields[field].annotation):
                return candidate
    return candidates[0] if candidates else None


def _flattened(annotation: Any) -> list[Any]:
    if annotation is DetectorSection:
        return list(section_classes())
    arguments = getattr(annotation, "__args__", ())
    return [annotation, *(leaf for argument in arguments for leaf in _flattened(argument))]


def _literals(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", ())


def _sibling_keys(model: type[BaseModel] | None) -> list[str]:
    return list(model.model_fields) if model is not None else []
