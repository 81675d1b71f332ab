"""Writes a resolved configuration as plain data or YAML, with every default filled in and paths absolute."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from autokd.config.resolved import ResolvedConfig
from autokd.documents import dump_yaml
from autokd.files import text_digest


def config_data(config: ResolvedConfig) -> dict[str, Any]:
    """Return the configuration as plain data, as ``config_yaml`` writes it.

    Args:
        config: a resolved configuration; any other would be written with defaults in place of inherited values.
    """
    return config.model_dump(mode="json")


def config_yaml(config: ResolvedConfig) -> str:
    """Return the text of a file that resolves to the same configuration, whatever AutoKD's defaults become.

    Args:
        config: a resolved configuration.
    """
    return dump_yaml(config_data(config))


def config_digest(config: ResolvedConfig) -> str:
    """Return 16 hexadecimal digits that identify what a run's numbers depend on.

    Args:
        config: a resolved configuration.
    """
    return text_digest(json.dumps(config_identity(config_data(config)), sort_keys=True))


def config_identity(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration must not change while a run goes on.

    ``name``, ``runtime``, ``search.trials`` and ``cache.max_bytes`` are left out: they change no number that was
    measured. Of a file or folder only whether there is one is kept: it may be moved, and its content is compared apart
    (``study.contents``).

    Args:
        data: plain data of a resolved configuration, as a run directory holds it.
    """
    kept = {key: value for key, value in data.items() if key not in ("name", "runtime")}
    if isinstance(kept.get("search"), dict):
        kept["search"] = {key: value for key, value in kept["search"].items() if key != "trials"}
    if isinstance(kept.get("cache"), dict):
        kept["cache"] = {key: value for key, value in kept["cache"].items() if key != "max_bytes"}
        if not kept["cache"]:
            del kept["cache"]
    if isinstance(kept.get("data"), dict):
        kept["data"] = {key: _place(value) if key in _PLACES_OF_DATA else value for key, value in kept["data"].items()}
    for side in ("teacher", "student"):
        kept[side] = _without_places(kept.get(side))
    return kept


_PLACES_OF_DATA = ("root", "images", "annotations", "file", "train", "val", "test")


def _place(value: Any) -> str | None:
    return None if value is None else "(a place)"


def _without_places(value: Any) -> Any:
    """Return a detector's section with a word in place of each absolute path, and without the folder of weights."""
    if isinstance(value, dict):
        # Only a place: the files in it are known by their names.
        return {key: _without_places(item) for key, item in value.items() if key != "weights_dir"}
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    return _place(value) if isinstance(value, str) and os.path.isabs(value) else value
