"""The place of an option in a config: it must hold a plain value, so that nothing but numbers and words is replaced.

``autokd.config.plain_options`` has refused keys and values that could name or load something, before the config was
read. Here the config is known: an option takes the place of a number, a word or a list of them, and of nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autokd.config.plain_options import REMOVABLE
from autokd.errors import DetectorError, one_of

_ABSENT = object()


def check_option(config: Any, key: str, value: Any, path: Path) -> None:
    """Refuse an option that has no place in a config, or takes the place of more than a plain value.

    A key that the config leaves out has a place if the class that ``type`` names has a parameter of that name whose
    default is a plain value.

    Args:
        config: ``mmengine.Config`` without the option.
        key: dotted key.
        value: new value.
        path: file of the config, for errors.

    Raises:
        DetectorError: if it is refused.
    """
    *parents, last = key.split(".")
    part: Any = dict(config.items())
    for depth, name in enumerate(parents):
        part = _inside(part, name, key, ".".join(parents[:depth]), path)
    present = _value_at(part, last, key, ".".join(parents), path)
    if last in REMOVABLE and value is None:
        return
    if _has_text(value) and not _has_text(present):
        raise DetectorError(
            f"options: {key!r}: found {value!r}, but {path} has {present!r} there. Give a number, or write it into a "
            "config of your own."
        )


def _inside(part: Any, name: str, key: str, where: str, path: Path) -> Any:
    if isinstance(part, (list, tuple)):
        if not name.isdecimal() or int(name) >= len(part):
            raise DetectorError(f"options: {key!r}: {where} has {len(part)} entries, counted from 0; no {name!r}.")
        return part[int(name)]
    if isinstance(part, Mapping) and name in part:
        return part[name]
    raise _no_place(key, name, part if isinstance(part, Mapping) else (), path)


def _value_at(part: Any, name: str, key: str, where: str, path: Path) -> Any:
    """Return the plain value that an option replaces."""
    if isinstance(part, Mapping) and name not in part:
        if name in REMOVABLE:
            return None
        default = _default_of(part.get("type"), name)
        if default is _ABSENT:
            raise _no_place(key, name, part, path)
        return default
    present = _inside(part, name, key, where, path)
    if name not in REMOVABLE and not _is_leaf(present):
        raise DetectorError(
            f"options: {key!r}: {path} has a whole part there, and an option replaces numbers, words and lists of them "
            f"alone. Name a key inside it ({_keys(present)}), or write a config of your own with _base_."
        )
    return present


def _no_place(key: str, name: str, allowed: Iterable[str], path: Path) -> DetectorError:
    return DetectorError(f"options: {key!r} has no place in {path}: " + one_of(name, map(str, allowed), noun="key"))


def _default_of(type_name: Any, name: str) -> Any:
    """Return the plain default of a parameter of a registered class, or ``_ABSENT``."""
    from mmdet.registry import MODELS

    found = MODELS.get(type_name) if isinstance(type_name, str) and "." not in type_name else type_name
    if not inspect.isclass(found):
        return _ABSENT
    for owner in found.__mro__:  # a class hands its **kwargs on to the one that it is derived from
        made = vars(owner).get("__init__")
        parameters = inspect.signature(made).parameters if inspect.isfunction(made) else {}
        if name in parameters:
            default = parameters[name].default
            is_plain = default not in (None, inspect.Parameter.empty) and _is_leaf(default)
            return default if is_plain else _ABSENT
    return _ABSENT


def _is_leaf(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_leaf(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _has_text(value: Any) -> bool:
    return any(_has_text(item) for item in value) if isinstance(value, (list, tuple)) else isinstance(value, str)


def _keys(part: Any) -> str:
    names = list(map(str, part)) if isinstance(part, Mapping) else [str(i) for i in range(len(part))]
    return ", ".join(names[:8])
