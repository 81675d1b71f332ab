"""Writes a resolved configuration back as YAML: every default filled in, paths absolute."""

from __future__ import annotations

import json
from typing import Any

from autokd.config.model import RunConfig
from autokd.config.proxy import ProxyRecipe
from autokd.documents import dump_yaml
from autokd.files import text_digest

_LATER_PROXY_KEYS = ("of_epochs", "steps", "measure", "image_size_px", "subset_rule", "frozen")
"""Ways of making the proxy cheaper that change nothing where they are left at their defaults."""


def config_data(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain data, the default space written out."""
    data = config.model_dump(mode="json")
    # What is switched off is not written, so that it says nothing new of configurations without it.
    if config.search.promote_after is None:
        del data["search"]["promote_after"]
        if not isinstance(config.teacher, tuple):
            del data["teacher_factors"]
    for name in _LATER_PROXY_KEYS:
        if getattr(config.proxy, name) == ProxyRecipe.model_fields[name].default:
            del data["proxy"][name]
    return data


def config_yaml(config: RunConfig) -> str:
    """A space file that means the same, whatever AutoKD's defaults become."""
    return dump_yaml(config_data(config))


def config_digest(config: RunConfig) -> str:
    """Identifies what a run's numbers depend on: not its workers, nor how many trials it asks for."""
    data = config_data(config)
    del data["runtime"]
    data["search"] = {key: value for key, value in data["search"].items() if key != "trials"}
    return text_digest(json.dumps(data, sort_keys=True))
