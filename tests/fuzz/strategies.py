"""Hypothesis strategies of files that a user may be sent, derived from their schemas.

Each draws something that the schema allows, with odd values in some places: other types, numbers beyond every range,
texts that mean something to a reader (tags, aliases, paths).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import BaseModel

from autokd.config import RunConfig
from autokd.config.detectors import section_classes
from autokd.spec.operator import Operator
from autokd.spec.vocabulary import DISTANCES, SOURCES, TRANSFORMS

ODD_TEXTS = (
    "",
    "~",
    "null",
    "1_000",
    "1e400",
    "!!int foo",
    "&a [*a]",
    "<<",
    "../../x",
    "/dev/zero",
    "x" * 5000,
    "\x00",
    "\u2028",
    "-1",
    "none",
    "auto",
    "2024-11-05",
    "{}",
    "a: b",
    "=",
    "0x10",
    "1:30",
)
ODD_NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**63,
    10**29,
    10**400,
    -(10**400),
    1e308,
    -1e-308,
    5e-324,
    math.inf,
    -math.inf,
    math.nan,
)

odd_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(ODD_TEXTS),
    st.sampled_from(ODD_NUMBERS),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
)
odd_values = st.recursive(
    odd_leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=4,
)


def _mostly(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw from a strategy, and an odd value in one of ten cases."""
    return st.integers(0, 9).flatmap(lambda number: odd_values if number == 0 else strategy)


def of_annotation(annotation: Any) -> st.SearchStrategy[Any]:
    """Return a strategy of the values of a field.

    Args:
        annotation: the field's type.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _mostly(st.sampled_from(arguments))
    if origin in (Union, UnionType):
        return st.one_of(*map(of_annotation, arguments))
    if origin is tuple:
        items = [argument for argument in arguments if argument is not ...]
        if ... in arguments:
            return _mostly(st.lists(of_annotation(items[0]), max_size=4))
        return _mostly(st.tuples(*map(of_annotation, items)).map(list))
    if origin is not None and arguments:  # Annotated, and containers that sections do not have yet
        return of_annotation(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _mostly(section(annotation))
    plain = {
        bool: st.booleans(),
        int: st.integers(0, 100),
        float: st.floats(0, 100),
        str: st.sampled_from(("fitnet", "pkd", "none", "a", *ODD_TEXTS[:6])),
        Path: st.sampled_from(("data", "train.json", "images", "../x")),
        NoneType: st.none(),
    }
    return _mostly(plain.get(annotation, odd_values))


def section(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy of the mappings of a section, with some of its keys and maybe one that it lacks.

    Args:
        model: the section.
    """
    fields = {name: of_annotation(field.annotation) for name, field in model.model_fields.items()}
    return some_of(fields | {"epoch": odd_leaves, "": odd_leaves})


@st.composite
def some_of(draw: st.DrawFn, fields: dict[str, st.SearchStrategy[Any]], most: int = 3) -> dict[str, Any]:
    """Draw a mapping with a few of some keys: all at once would cost more to draw than to read.

    Args:
        fields: strategy of each key's values.
        most: number of keys.
    """
    names = draw(st.lists(st.sampled_from(list(fields)), max_size=most, unique=True))
    return {name: draw(fields[name]) for name in names}


def _step(table: dict[str, Operator]) -> st.SearchStrategy[Any]:
    def step(operator: Operator) -> st.SearchStrategy[Any]:
        names = [parameter.name for parameter in operator.parameters] or ["size"]
        values = st.dictionaries(st.sampled_from(names), _mostly(st.floats(0, 10)), max_size=2)
        return st.one_of(st.just(operator.name), values.map(lambda params: {operator.name: params}))

    return _mostly(st.sampled_from(list(table.values())).flatmap(step))


_domain = st.one_of(
    st.floats(0.1, 100),
    st.lists(st.floats(0.1, 100), max_size=3),
    st.builds(
        lambda kind, ends: {kind: ends},
        st.sampled_from(("uniform", "log_uniform")),
        st.lists(st.floats(0.1, 100), min_size=1, max_size=3),
    ),
)
spaces = some_of(
    {
        "terms": _mostly(st.one_of(st.integers(1, 3), st.fixed_dictionaries({"min": st.just(1), "max": odd_leaves}))),
        "sources": _mostly(st.lists(_step(SOURCES), max_size=2)),
        "transforms": _mostly(
            st.dictionaries(
                st.sampled_from(("normalize", "reshape")), st.lists(_step(TRANSFORMS), max_size=2), max_size=2
            )
        ),
        "distances": _mostly(st.lists(_step(DISTANCES), max_size=2)),
        "gradient_ratio": _mostly(_domain),
        "levels": odd_leaves,
    }
)

_detectors = st.sampled_from(section_classes()).flatmap(section)
_pair = st.fixed_dictionaries(
    {
        "data": _mostly(st.just({"format": "shapes"})),
        "teacher": st.one_of(st.just({"train": {}}), _mostly(_detectors)),
        "student": st.one_of(st.just({}), _mostly(_detectors)),
    }
)
_others = {
    name: _mostly(spaces) if name == "space" else of_annotation(field.annotation)
    for name, field in RunConfig.model_fields.items()
    if name not in ("data", "teacher", "student")
}
configs = st.builds(lambda pair, others: pair | others, _pair, some_of(_others, most=2))

_weights = st.builds(
    lambda kind, value: {kind: value}, st.sampled_from(("relative", "absolute", "share")), _mostly(st.floats(0.01, 50))
)
_terms = st.lists(
    _mostly(
        st.fixed_dictionaries(
            {
                "source": _step(SOURCES),
                "distance": _step(DISTANCES),
                "weight": _mostly(
                    st.builds(
                        lambda kind, value: {kind: value},
                        st.sampled_from(("relative", "absolute", "share")),
                        _mostly(st.floats(0.01, 50)),
                    )
                ),
            },
            optional={
                "transforms": _mostly(st.lists(_step(TRANSFORMS), max_size=3)),
                "levels": _mostly(st.sampled_from(("all", "coarsest", "finest", "p3"))),
                "adapter": _mostly(st.sampled_from(("linear", "mlp"))),
            },
        )
    ),
    max_size=3,
)
distillers = st.fixed_dictionaries(
    {"terms": _mostly(_terms)},
    optional=dict.fromkeys(("schema", "name", "paper", "release", "family", "families"), odd_values),
)

_number = _mostly(st.floats(-5, 60))
_boxes = st.lists(_number, min_size=4, max_size=4)
_categories = st.fixed_dictionaries({"id": _mostly(st.integers(1, 2)), "name": _mostly(st.sampled_from("xy"))})
coco = st.fixed_dictionaries(
    {
        "images": _mostly(
            st.lists(
                _mostly(
                    st.fixed_dictionaries(
                        {"id": _mostly(st.integers(1, 3)), "file_name": _mostly(st.just("a.png"))},
                        optional={"width": _mostly(st.just(32)), "height": _mostly(st.just(32))},
                    )
                ),
                min_size=1,
                max_size=3,
            )
        ),
        "annotations": _mostly(
            st.lists(
                _mostly(
                    st.fixed_dictionaries(
                        {
                            "id": _mostly(st.integers(1, 9)),
                            "image_id": _mostly(st.integers(1, 3)),
                            "category_id": _mostly(st.integers(1, 2)),
                            "bbox": _mostly(st.lists(_number, min_size=4, max_size=4)),
                        },
                        optional={"area": _number, "iscrowd": _mostly(st.integers(0, 1)), "segmentation": odd_values},
                    )
                ),
                max_size=4,
            )
        ),
        "categories": _mostly(
            st.lists(
                _mostly(
                    st.fixed_dictionaries({"id": _mostly(st.integers(1, 2)), "name": _mostly(st.sampled_from("xy"))})
                ),
                min_size=1,
                max_size=2,
            )
        ),
    }
)


def yaml_text(data: Any) -> str:
    """Return plain data as YAML: JSON is YAML, but for infinities and what is no number.

    Args:
        data: plain data.
    """
    text = json.dumps(data)
    for ours, theirs in (("-Infinity", "-.inf"), ("Infinity", ".inf"), ("NaN", ".nan")):
        text = text.replace(ours, theirs)
    return text + "\n"


@st.composite
def edited(draw: st.DrawFn, text: str) -> str:
    """Draw a text with some pieces removed, repeated, moved or replaced.

    Args:
        text: a valid file.
    """
    for _ in range(draw(st.integers(1, 4))):
        ends = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
        start, end = ends[0], min(ends[1], ends[0] + 40)
        piece = draw(
            st.one_of(st.just(""), st.just(text[start:end] * 2), st.sampled_from(ODD_TEXTS), st.text(max_size=5))
        )
        text = text[:start] + piece + text[end:]
    return text


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw a file of bytes that was cut, or has some bytes changed.

    Args:
        content: a valid file.
    """
    if draw(st.booleans()):
        content = content[: draw(st.integers(0, len(content)))]
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 8))):
        if changed:
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)
