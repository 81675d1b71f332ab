"""Options of a framework's config that are data: a dotted key, and a number, a word, or a list of them.

A config of MMDetection is turned into a model by calling what its ``type`` names, with the rest as arguments. A config
file may name anything, since it is code and trusted as code. A file of AutoKD is data and may come from anyone: what it
overrides must not name, load or import anything.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator

_NAMING = {
    "type": "names what is called",
    "init_cfg": "loads weights",
    "pretrained": "loads weights",
    "checkpoint": "loads weights",
    "load_from": "loads weights",
    "teacher_ckpt": "loads weights",
    "teacher_config": "runs a file",
    "custom_imports": "imports modules",
    "custom_hooks": "names what is called",
    "default_scope": "names where types are found",
}
"""Key of a config -> why no option may set it. A leading underscore (``_delete_``, ``_scope_``, ``_base_``) is an
instruction to mmengine, and refused as well."""
REMOVABLE = ("init_cfg", "pretrained")
"""Keys that an option may set to null: nothing is then loaded."""

_KEY = re.compile(r"\w[\w-]*(\.\w[\w-]*)*", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*( [A-Za-z0-9][A-Za-z0-9_+-]*)*")
"""A word of a setting such as "on_output": no path, address or dotted name, which have a dot, a slash or a colon."""
_REMEDY = "Write it into a config file of your own (with _base_), and name that under 'config'"
_MAX_DEPTH = 4
"""Lists in lists of an option: scales of anchors of levels need two."""


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as they are, if each is data.

    Args:
        options: dotted key -> value.

    Raises:
        ValueError: if a key or value could name, load or import something.
    """
    for key, value in options.items():
        _check_key(key, value)
        if not is_plain(value):
            raise ValueError(
                f"{key}: found {_shortened(value)}, but an option is a number, a word without dots and slashes, or a "
                f"list of them; for several keys of a part, write each with dots (model.neck.num_outs: 5). {_REMEDY} "
                "if it must be more"
            )
    return options


def _check_key(key: str, value: Any) -> None:
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"{_shortened(key)} is no key of a config: write names joined by dots, as in model.neck.num_outs"
        )
    parts = key.split(".")
    if parts[-1] in REMOVABLE and value is None:
        parts = parts[:-1]
    for part in parts:
        if part.startswith("_"):
            raise ValueError(f"{key}: {part!r} is an instruction to mmengine, which no option may give. {_REMEDY}")
        if part in _NAMING:
            remedy = f"{_REMEDY}; 'null' leaves it out" if part in REMOVABLE else _REMEDY
            raise ValueError(f"{key}: {part!r} {_NAMING[part]}, which no option may set. {remedy}")


def is_plain(value: Any, depth: int = 0) -> bool:
    """Return whether a value is a number, a word, null, or a list of them.

    Args:
        value: value of an option.
        depth: number of lists around it.
    """
    if value is None or isinstance(value, (bool, int)):
        return True
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return bool(_WORD.fullmatch(value))
    return isinstance(value, (list, tuple)) and depth < _MAX_DEPTH and all(is_plain(item, depth + 1) for item in value)


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


PlainOptions = Annotated[dict[str, Any], AfterValidator(plain_options)]
"""Overrides of a framework's config, which are data."""
