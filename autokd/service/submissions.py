"""Check a submitted config file: overrides, allowed folders, no code. Nothing outside the allowed folders is touched.

The file is data (``autokd.documents``). Its paths are checked twice: every text of the raw file that could be a path,
before anything is looked up, so that error messages say nothing about other folders; and every path of the validated
configuration, with links followed.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from autokd.config import RunConfig, load_config
from autokd.documents import dump_yaml, load_document
from autokd.errors import ConfigError, name_list
from autokd.service.settings import ServiceSettings

_PATH_KEYS = ("root", "checkpoint", "config")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""A model on Hugging Face's hub. A job runs in a folder that holds its config file alone, so it is no folder there."""
_SUFFIXES = (".yaml", ".yml", ".pt", ".pth", ".py", ".safetensors", ".bin")
_YOLO_KEYS = ("path", "train", "val", "test")


def check_submission(text: str, overrides: Mapping[str, Any], settings: ServiceSettings) -> RunConfig:
    """Return the configuration of a submitted config file, if it is allowed here.

    Args:
        text: YAML text of the file; its paths are absolute.
        overrides: dotted keys -> values that replace those of the file, such as ``{"search.trials": 60}``.
        settings: rules of the service.

    Raises:
        ConfigError: if the file is wrong, names something outside the allowed folders, or code that is not allowed.
    """
    if "\n" not in text:
        raise ConfigError("the config file is sent as its YAML text, which has several lines; this is one line.")
    data = load_document(text).data
    if not isinstance(data, dict):
        raise ConfigError("a config file is a mapping with the keys data, teacher and student, and maybe space.")
    data = overridden(data, overrides)
    _check_code(data, settings)
    for place, value in _texts(data):
        if _may_be_path(place, value):
            _check_path(value, place, settings.roots)
    config = load_config(dump_yaml(data) + "\n")
    check_paths(config, settings.roots)
    return config


def overridden(data: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return data with values replaced by dotted keys; sections that are absent are made.

    Args:
        data: content of a config file.
        overrides: dotted keys -> values.

    Raises:
        ConfigError: if a key leads through a value that is no section.
    """
    changed = copy.deepcopy(data)
    for key, value in overrides.items():
        *sections, last = key.split(".")
        place: Any = changed
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"override {key!r}: {section!r} is no section. Give its value as a whole.")
        place[last] = value
    return changed


def check_paths(config: RunConfig, roots: Sequence[Path]) -> None:
    """Check every file and folder that a configuration names.

    Args:
        config: configuration with absolute paths.
        roots: allowed folders.

    Raises:
        ConfigError: naming the first that lies outside of them.
    """
    data = config.data
    root = getattr(data, "root", None)
    for place, path in _paths(config):
        inside = root if place.startswith("data.") and root is not None and not path.is_absolute() else Path()
        _check_path(str(inside / path), place, roots)
    for place, detector in (
        *((f"teacher[{i}]", each) for i, each in enumerate(config.teachers)),
        ("student", config.student),
    ):
        for path in detector.weight_files().values():
            _check_path(str(path), place, roots)
    for place, name in _distiller_files(config):
        _check_path(name, place, roots)
    if data.format == "yolo" and root is not None:
        _check_yolo(root / data.file, roots)


def _check_yolo(file: Path, roots: Sequence[Path]) -> None:
    """Check the folders that a ``data.yaml`` of a YOLO set names: the data section's reader follows them."""
    found = load_document(file).data
    if not isinstance(found, dict):
        return
    base = file.parent / str(found.get("path") or "")
    for key in _YOLO_KEYS:
        value = found.get(key)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                _check_path(str(base / text), f"{file.name}: {key}", roots)


def _check_code(data: Mapping[str, Any], settings: ServiceSettings) -> None:
    teacher = data.get("teacher")
    sections = [*(teacher if isinstance(teacher, list) else [teacher]), data.get("student")]
    # MMDetection's ``config`` is the path of a Python file; that of other frameworks is a mapping of plain values.
    is_code = any(
        isinstance(each, dict) and (each.get("framework") == "mmdet" or isinstance(each.get("config"), str))
        for each in sections
    )
    if is_code and not settings.allows_mmdetection:
        raise ConfigError(
            "a config of MMDetection is code, which this service does not run. Use a torchvision detector, or ask the "
            "operator to start the service with --allow-mmdetection."
        )


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield place and text of every string in a tree of data."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _texts(item, f"{place}[{i}]")


def _may_be_path(place: str, text: str) -> bool:
    """Return whether a text of the raw file is a path that is not seen from the data's own root, or leads out of it."""
    key = place.rpartition(".")[2]
    if key in _PATH_KEYS or (key == "weights" and re.fullmatch(r"[A-Z0-9_]+", text) is None):
        return True
    if key == "name" and _HUB_NAME.fullmatch(text):
        return False
    if not place.startswith("data.") and ("/" in text or Path(text).suffix in _SUFFIXES):
        return True
    return text.startswith(("/", "~", "\\")) or "$" in text or ".." in text.replace("\\", "/").split("/")


def _paths(value: Any, place: str = "") -> Iterator[tuple[str, Path]]:
    """Yield place and value of every path of a configuration."""
    if isinstance(value, Path):
        yield place, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _paths(getattr(value, name), f"{place}.{name}".lstrip("."))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _paths(item, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _paths(item, f"{place}[{i}]")


def _distiller_files(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield place and path of every distiller that is named by a file."""
    for place, names in (("search.enqueue", config.search.enqueue), ("full.baselines", config.full.baselines)):
        yield from ((place, name) for name in names if Path(name).suffix in (".yaml", ".yml"))


def _check_path(text: str, place: str, roots: Sequence[Path]) -> None:
    if "$" in text or text.startswith("~"):
        raise ConfigError(f"{place}: {text[:200]!r} has a variable or a home folder. Write the absolute path.")
    if not os.path.isabs(text):
        raise ConfigError(f"{place}: {text[:200]!r} is a relative path. Write the absolute path on the cluster.")
    real = Path(os.path.realpath(text))
    if not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        allowed = name_list(roots, empty="none: the operator names them with --root")
        raise ConfigError(f"{place}: {text[:200]!r} lies outside the folders that this service allows: {allowed}.")
