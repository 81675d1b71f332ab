"""Writes the reference of config files: ``python -m autokd.config.reference > docs/config-file.md``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from autokd.config.cache import CacheConfig
from autokd.config.data import CocoData, ShapesData, VocData, YoloData
from autokd.config.frameworks import FRAMEWORKS, ORDINARY_FRAMEWORK
from autokd.config.model import RuntimeConfig, SearchConfig
from autokd.config.proxy import ProxyRecipe, WarmStart
from autokd.config.recipes import FullRecipe, Recipe, TeacherRecipe
from autokd.config.torchvision_section import Backbone, TorchvisionDetector

_INTRODUCTION = """\
# The config file

*Made by `python -m autokd.config.reference > docs/config-file.md`; a test keeps it so. Do not edit.*

A YAML file with the data, the detectors, the space of distillers to search, and the recipes of trainings. Only `data`,
`teacher` and `student` are required. Unknown keys are errors; every error names its line. Paths are relative to the
working directory; `~` and environment variables in them are expanded. Keys of every recipe that `proxy` leaves out are
taken from `full`, apart from `epochs`. The section `space` is described at the heads of `autokd/space/part_parse.py`
(sums of published parts, the default) and `autokd/space/parse.py` (terms of operators, which
[operators.md](operators.md) lists). `autokd space CONFIG.yaml` shows the tree that a file describes.

`teacher` is one section, or a list of them. `teacher_weights` gives the weights of several teachers' losses: `equal`
(the default), `gap`, `gradient`, or a list of positive numbers, one per teacher:
[distillers.md](distillers.md#several-teachers).

The keys that make the `proxy` cheaper, and their combinations: [proxy.md](proxy.md).
"""

_SECTIONS: list[tuple[str, type[BaseModel], type[BaseModel] | None]] = [
    ("`data` with `format: coco`", CocoData, None),
    ("`data` with `format: voc`", VocData, None),
    ("`data` with `format: yolo`", YoloData, None),
    ("`data` with `format: shapes` (generated)", ShapesData, None),
    ("`teacher` and `student`", TorchvisionDetector, None),
    ("`backbone` of a torchvision detector", Backbone, None),
    *(
        (f"`teacher` and `student` with `framework: {row.name}`", row.section, None)
        for row in FRAMEWORKS
        if row.name != ORDINARY_FRAMEWORK
    ),
    ("Every recipe: the teacher's `train`, `proxy`, `full`", Recipe, None),
    ("`train` of the teacher, besides", TeacherRecipe, Recipe),
    ("`search`", SearchConfig, None),
    ("`proxy`, besides", ProxyRecipe, Recipe),
    ("`warm_start` of the proxy", WarmStart, None),
    ("`full`, besides", FullRecipe, Recipe),
    ("`runtime`", RuntimeConfig, None),
    ("`cache`", CacheConfig, None),
]


def reference() -> str:
    """Return the page in Markdown: a table of keys, defaults and meanings for each section."""
    return _INTRODUCTION + "".join(_section(title, model, base) for title, model, base in _SECTIONS)


def _section(title: str, model: type[BaseModel], base: type[BaseModel] | None) -> str:
    rows = ""
    for name, field in model.model_fields.items():
        if base is not None and name in base.model_fields and _is_same(field, base.model_fields[name]):
            continue
        meaning = " ".join((field.description or "").split())
        rows += f"| `{name}` | {_default(field.default)} | {meaning} |\n"
    return f"\n## {title}\n\n| key | default | meaning |\n|---|---|---|\n{rows}"


def _is_same(field: FieldInfo, of_base: FieldInfo) -> bool:
    return bool(field.default == of_base.default) and field.description == of_base.description


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        settings = ", ".join(f"{name}: {_plain(item)}" for name, item in value.model_dump().items())
        return f"`{{{settings}}}`"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    return str(value)


if __name__ == "__main__":
    print(reference(), end="")
