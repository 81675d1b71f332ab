"""Writes a resolved configuration as plain data or YAML, with every default filled in and paths absolute."""

from __future__ import annotations

import json
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

    ``runtime``, ``search.trials``, ``cache.max_bytes`` and the detectors' ``weights_dir`` are left out: they change no
    number that was measured, and a resumed run may change them.

    Args:
        config: a resolved configuration.
    """
    data = config_data(config)
    del data["runtime"]
    cache = {key: value for key, value in data.pop("cache", {}).items() if key != "max_bytes"}
    if cache:
        data["cache"] = cache
    data["search"] = {key: value for key, value in data["search"].items() if key != "trials"}
    teachers = data["teacher"] if isinstance(data["teacher"], list) else [data["teacher"]]
    for detector in (*teachers, data["student"]):
        detector.pop("weights_dir", None)  # only a place: the files in it are known by their names
    return text_digest(json.dumps(data, sort_keys=True))
