"""AutoKD searches for the loss with which a small object detector learns from a big one.

Floors (a module imports only from lower floors; ``docs/architecture.md`` has the contracts)::

    cli
    study
    report
    mmdet_training
    runtime           benchmark                                 training
    search            distill       detectors       data        storage
    mmcv_ops
    config
    space
    outputs           presets                                   outcomes
    spec
    documents
    errors

The public names are loaded when first used, so that importing ``autokd`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autokd.config import load_config, load_space
    from autokd.distill import Distiller, build_distiller
    from autokd.errors import AutoKDError
    from autokd.outputs import DetectorOutputs
    from autokd.presets import load_preset, preset_names
    from autokd.search import MCTSSampler
    from autokd.space import Space
    from autokd.spec import DistillerSpec

__version__ = "0.1.0"

_HOMES = {
    "AutoKDError": "autokd.errors",
    "DetectorOutputs": "autokd.outputs",
    "Distiller": "autokd.distill",
    "DistillerSpec": "autokd.spec",
    "MCTSSampler": "autokd.search",
    "Space": "autokd.space",
    "build_distiller": "autokd.distill",
    "load_config": "autokd.config",
    "load_preset": "autokd.presets",
    "load_space": "autokd.config",
    "preset_names": "autokd.presets",
}

__all__ = [
    "AutoKDError",
    "DetectorOutputs",
    "Distiller",
    "DistillerSpec",
    "MCTSSampler",
    "Space",
    "build_distiller",
    "load_config",
    "load_preset",
    "load_space",
    "preset_names",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autokd' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
