"""Reads a space of parts from YAML.

parts:
  number: {min: 1, max: 4}                 # parts of a sum
  presets: all                             # or: [fitnet, pkd, {cwd: 40}], with a gradient ratio of one's own
  weights: [measured, published]           # at a gradient ratio, or the weights of the paper, times a strength
  strengths: [0.1, 0.3333, 1, 3, 10]       # multiples of each part's calibrated strength
  schedule: [constant, linear_decay]       # of parts that were published with constant weights
  free: {sources: [...], gradient_ratio: 100, ...}   # free terms, by the keys of a space of operators; or: none
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from autokd.documents import Document, Location
from autokd.errors import SpaceError, SpecError, one_of
from autokd.presets import preset_names
from autokd.space.domains import Choices, parse_domain
from autokd.space.parse import DEFAULT_SPACE, space_from_document
from autokd.space.part_space import AnySpace, Part, PartSpace, make_part
from autokd.space.part_table import PART_FAMILIES, row_of
from autokd.space.space import Space
from autokd.spec.terms import SCHEDULES

_FREE: dict[str, Any] = DEFAULT_SPACE | {"terms": 1, "gradient_ratio": 100}
DEFAULT_PARTS: dict[str, Any] = {
    "number": {"min": 1, "max": 4},
    "presets": "all",
    "weights": ["measured", "published"],
    "strengths": [0.1, 1 / 3, 1, 3, 10],
    "schedule": ["constant", "linear_decay"],
    "free": _FREE,
}
_WEIGHTS = ("measured", "published")
_PLAIN_SCHEDULES = tuple(schedule for schedule in SCHEDULES if schedule != "off_after")
_MAX_PARTS = 8
_OWN = "own"
"""Family of presets that the table of parts does not have."""


def read_space(document: Document) -> AnySpace:
    """Read a space of either kind.

    Args:
        document: a mapping with the key ``parts``, or with keys of ``DEFAULT_SPACE``.

    Raises:
        SpaceError: with file and line, for what is wrong with it.
        SpecError: for a misspelled operator, parameter or preset.
    """
    if not isinstance(document.data, dict) or "parts" not in document.data:
        return space_from_document(document)
    for key in document.data:
        if key != "parts":
            raise document.error(
                (key,), f"{key!r} is no key of a space of parts. Move it into 'parts: {{free: ...}}'.", SpaceError
            )
    return _parts(document)


@lru_cache(maxsize=1)
def default_parts() -> PartSpace:
    """Return the space of parts of a file that says nothing about its space."""
    return _parts(Document({"parts": {}}, "default space"))


def _parts(document: Document) -> PartSpace:
    given = document.data["parts"]
    if not isinstance(given, dict):
        keys = ", ".join(DEFAULT_PARTS)
        raise document.error(("parts",), f"found {given!r}; a space of parts is a mapping with {keys}.", SpaceError)
    for key in given:
        if key not in DEFAULT_PARTS:
            raise document.error(("parts", key), one_of(str(key), list(DEFAULT_PARTS), noun="key"), SpaceError)
    data = DEFAULT_PARTS | given
    low, high = _number(data["number"], document)
    free = _free(data["free"], document)
    parts = _published(data["presets"], _words("weights", data, _WEIGHTS, document), document)
    if not parts and free is None:
        raise document.error(("parts", "presets"), "found no preset, and there are no free terms.", SpaceError)
    strengths = _strengths(data["strengths"], document)
    schedules = _words("schedule", data, _PLAIN_SCHEDULES, document)
    written = data if free is None or free.document is None else data | {"free": dict(free.document)}
    return PartSpace(parts, strengths, schedules, low, high, free, {"parts": written})


def _number(data: Any, document: Document) -> tuple[int, int]:
    place: Location = ("parts", "number")
    if isinstance(data, int) and not isinstance(data, bool):
        data = {"min": data, "max": data}
    if not isinstance(data, dict) or not set(data) <= {"min", "max"}:
        raise document.error(place, f"found {data!r}; write a number, or {{min: 1, max: 4}}.", SpaceError)
    low, high = data.get("min", 1), data.get("max", _MAX_PARTS // 2)
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (low, high))
    if not whole or not 1 <= low <= high <= _MAX_PARTS:
        raise document.error(
            place, f"found {low!r} to {high!r}; allowed is 1 <= min <= max <= {_MAX_PARTS}.", SpaceError
        )
    return low, high


def _words(key: str, data: dict[str, Any], allowed: tuple[str, ...], document: Document) -> tuple[str, ...]:
    found = data[key]
    words = list(allowed) if found == "all" else found if isinstance(found, list) else [found]
    for word in words:
        if word not in allowed:
            raise document.error(("parts", key), one_of(str(word), allowed, noun=key), SpaceError)
    if not words or len(set(words)) < len(words):
        raise document.error(("parts", key), f"found {found!r}; write one or more words, each once.", SpaceError)
    return tuple(words)


def _strengths(data: Any, document: Document) -> tuple[float, ...]:
    domain = parse_domain(data, document, ("parts", "strengths"))
    if not isinstance(domain, Choices):
        raise document.error(("parts", "strengths"), f"found {data!r}; write a list of numbers.", SpaceError)
    return tuple(map(float, domain.values))


def _free(data: Any, document: Document) -> Space | None:
    if data in ("none", None):
        return None
    place: Location = ("parts", "free")
    if not isinstance(data, dict):
        raise document.error(place, f"found {data!r}; write the keys of a space of operators, or none.", SpaceError)
    space = space_from_document(Document(_FREE, document.source) if data is _FREE else _at(document, data))
    if (space.min_terms, space.max_terms) != (1, 1):
        raise document.error((*place, "terms"), "a free part is one term: leave 'terms' out.", SpaceError)
    if not isinstance(space.gradient_ratio, Choices) or len(space.gradient_ratio.values) != 1:
        raise document.error(
            (*place, "gradient_ratio"), "a free term has one gradient ratio, which 'strengths' multiply.", SpaceError
        )
    if len(space.schedules) != 1:
        raise document.error((*place, "schedule"), "the schedule of free terms is that of all parts.", SpaceError)
    return space


def _at(document: Document, data: dict[str, Any]) -> Document:
    """Return the section of free terms with its defaults; errors then name its file, and the key."""
    found = document.at("parts", "free")
    return replace(found, data=_FREE | data)


def _published(data: Any, weights: tuple[str, ...], document: Document) -> tuple[Part, ...]:
    place: Location = ("parts", "presets")
    every = [row.preset for rows in PART_FAMILIES.values() for row in rows]
    items = every if data == "all" else data
    if not isinstance(items, list):
        raise document.error(place, f"found {data!r}; write a list of presets, or 'all'.", SpaceError)
    found: dict[str, tuple[str, float]] = {}
    for i, item in enumerate(items):
        name, family, ratio = _row(item, document, (*place, i))
        if name in found:
            raise document.error((*place, i), f"{name!r} appears twice. Keep one.", SpaceError)
        found[name] = family, ratio
    order = (*PART_FAMILIES, _OWN)
    rows = sorted(found.items(), key=lambda row: order.index(row[1][0]))
    return tuple(
        make_part(name, family, ratio if kind == "measured" else None)
        for name, (family, ratio) in rows
        for kind in weights
    )


def _row(item: Any, document: Document, place: Location) -> tuple[str, str, float]:
    """Read a preset, or ``{preset: gradient ratio}``; return its name, its family and its gradient ratio."""
    name, ratio = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else (item, None)
    if not isinstance(name, str) or name not in preset_names():
        raise document.error(place, one_of(str(name), preset_names(), noun="preset"), SpecError)
    known = row_of(name)
    if ratio is None:
        ratio = known[1].gradient_ratio if known is not None else 100.0
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not ratio > 0:
        raise document.error(place, f"found {ratio!r}; write a gradient ratio, a number above 0.", SpaceError)
    return name, known[0] if known is not None else _OWN, float(ratio)


__all__ = ["DEFAULT_PARTS", "default_parts", "read_space"]
