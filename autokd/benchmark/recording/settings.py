"""The config file of an experiment, with the folder of its photographs taken from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autokd.config import ResolvedConfig, load_config
from autokd.detectors import resolve
from autokd.documents import dump_yaml, load_document

DATA_ROOT_VARIABLE = "AUTOKD_BCCD"
"""Environment variable with the folder of the BCCD photographs; it takes the place of ``data.root`` in the file."""


def read_config(path: Path) -> ResolvedConfig:
    """Return the configuration in a file; the environment variable ``AUTOKD_BCCD`` overrides its ``data.root``.

    Raises:
        ConfigError: if the file is no valid configuration.
    """
    # Errors of a configuration that comes from a file name its lines; dumped text has none, so it is the exception.
    if DATA_ROOT_VARIABLE in os.environ:
        return resolve(load_config(dump_yaml(read_data(path))))
    return resolve(load_config(path))


def read_data(path: Path) -> dict[str, Any]:
    """Return the file as plain data, which an experiment may change before it becomes a configuration.

    The environment variable ``AUTOKD_BCCD`` overrides ``data.root`` here, too.
    """
    data: dict[str, Any] = load_document(path).data
    if DATA_ROOT_VARIABLE in os.environ and data["data"].get("format") == "coco":
        data["data"]["root"] = os.environ[DATA_ROOT_VARIABLE]
    return data


def proxy_variants(
    base: ResolvedConfig, forms: Mapping[str, Mapping[str, Any]], reward: Sequence[str]
) -> dict[str, ResolvedConfig]:
    """Return a configuration for each form of the proxy.

    Args:
        base: data, pair and full recipe; what a proxy shares with the full recipe (rate, batch size, ...) is taken from
            there.
        forms: name -> keys of ``proxy`` in which the form differs, and ``student``: keys of the student.
        reward: metrics that every form measures.
    """
    shared = base.full.model_dump(include=type(base.proxy).model_fields.keys() & type(base.full).model_fields.keys())
    del shared["timeout_s"]
    configs = {}
    for name, form in forms.items():
        of_proxy = {key: value for key, value in form.items() if key != "student"}
        proxy = type(base.proxy).model_validate(shared | {"reward": reward} | of_proxy)
        student = base.student.model_copy(update=form.get("student", {}))
        configs[name] = base.model_copy(update={"proxy": proxy, "student": student})
    return configs
