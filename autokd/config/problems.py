"""Turns pydantic's problems with a file into one error that names places in the file and what is allowed there.

Pydantic mixes labels of its own into the path of a problem (tags of unions, names of types) and says in English what it
expects. So places are looked up in the file's own data, and allowed words and keys in the annotations of the sections.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from autokd.config.detectors import DetectorSection, TeacherTag, section_classes
from autokd.config.model import RunConfig
from autokd.config.section import ValueOfKeyError
from autokd.documents import Document, Location, format_location
from autokd.errors import ConfigError, one_of

ONE_TEACHER: TeacherTag = "one"

_DISCRIMINATORS = {"data": "format", "teacher": "framework", "student": "framework"}
"""Section -> the key that decides which class reads it."""


def located_error(error: ValidationError, document: Document) -> ConfigError:
    """Return (not raise) an error with a line for each problem of a file.

    Args:
        error: what ``RunConfig`` found.
        document: the file that it was read from.
    """
    texts: dict[Location, list[str]] = {}
    for problem in error.errors():
        location = _place(problem, document.data)
        texts.setdefault(location, []).append(_text(problem, location))
    # Where a value may be of several types, pydantic has a problem with each of them, at one place.
    lines = (document.error(location, " Or: ".join(dict.fromkeys(found))) for location, found in texts.items())
    return ConfigError("\n".join(map(str, lines)))


def _place(problem: ErrorDetails, data: Any) -> Location:
    """Return where the problem is in the file; keys of its path that the file does not have are pydantic's labels."""
    location: list[str | int] = []
    path = problem["loc"]
    last = path[-1] if path else None  # a problem of the whole file has no path
    for key in path:
        is_there = key in data if isinstance(data, dict) else isinstance(data, list) and isinstance(key, int)
        if is_there or (problem["type"] == "missing" and key == last):
            location.append(key)
            data = data[key] if is_there else None
        elif key == ONE_TEACHER and isinstance(data, list):
            # RunConfig reads a list of one teacher as that teacher, whose place is within the list.
            location.append(0)
            data = data[0]
    if isinstance(error := problem.get("ctx", {}).get("error"), ValueOfKeyError):
        location.append(error.key)
    if problem["type"] == "union_tag_invalid":
        location.append(_DISCRIMINATORS[str(path[0])])
    return tuple(location)


def _text(problem: ErrorDetails, location: Location) -> str:
    path, found = problem["loc"], problem["input"]
    if problem["type"] == "extra_forbidden":
        return one_of(path[-1], _keys_at(path[:-1]), noun="key")
    if problem["type"] == "missing":
        return f"is missing. Give {format_location(location)!r}."
    if problem["type"] == "literal_error":
        return one_of(found, _words_at(path))
    if problem["type"] == "union_tag_invalid":
        key = _DISCRIMINATORS[str(path[0])]
        classes = {section for section in _types_at(path) if key in getattr(section, "model_fields", ())}
        return one_of(problem["ctx"]["tag"], [word for section in classes for word in _tags_of(section, key)])
    if "image_size_px" in path[-1:] and not isinstance(found, (list, tuple)):
        return f"found {found!r}. Write height and width in pixels, [height, width]."
    if found is None and problem["type"] in ("model_type", "model_attributes_type", "union_tag_not_found"):
        return "the section is empty. Write its keys, or leave it out."
    if problem["type"] == "value_error":  # raised by a validator of ours
        return str(problem["ctx"]["error"])
    return f"found {found!r}: {problem['msg']}."


def _keys_at(path: tuple[int | str, ...]) -> list[str]:
    # A dict keeps one of each: a teacher's sections are both in the union of one and in that of several.
    return list(dict.fromkeys(name for section in _types_at(path) for name in getattr(section, "model_fields", ())))


def _words_at(path: tuple[int | str, ...]) -> list[str]:
    return [word for annotation in _types_at(path) for word in get_args(annotation) if isinstance(word, str)]


def _types_at(path: tuple[int | str, ...]) -> list[Any]:
    """Return the types that the value at a path of pydantic may have: sections, literals, plain types."""
    types: list[Any] = [RunConfig]
    for key in path:
        sections = [section for section in types if isinstance(section, type) and issubclass(section, BaseModel)]
        fields = [section.model_fields[key] for section in sections if key in section.model_fields]  # type: ignore[index]
        if fields:
            types = list(_leaves(fields[0].annotation))
        else:
            # A position in a list, or a label. The label of a section picks it among those of its union.
            picked = [section for section in sections for name in set(_DISCRIMINATORS.values())
                      if name in section.model_fields and key in _tags_of(section, name)]  # fmt: skip
            types = picked or types
    return types


def _leaves(annotation: Any) -> Iterator[Any]:
    """Yield an annotation and all that it is made of; the base of detectors' sections stands for every framework's."""
    if annotation is DetectorSection:
        yield from section_classes()
        return
    yield annotation
    for argument in get_args(annotation):
        yield from _leaves(argument)


def _tags_of(section: type[BaseModel], key: str) -> tuple[Any, ...]:
    return get_args(section.model_fields[key].annotation)
