"""AutoKD searches the loss with which a small object detector learns from a big one.

The verbs are functions that return values, as the commands of the same names print them::

    results = autokd.search("kd.yaml")                         # search, race, train the winner in full
    results = autokd.distill("kd.yaml", "pkd", gradient_ratio=40)    # train with a given distiller, no search
    scores = autokd.evaluate("kd.yaml", "runs/kd/student.pt")  # COCO AP of given weights
    bill = autokd.plan("kd.yaml", price=2.5)                   # disk, memory, hours and money of a search
    autokd.predict("runs/kd", ["photos"])                      # boxes as pictures, COCO JSON and CSV
    autokd.export("runs/kd", ["onnx"])                         # the student for other programs

The parts are usable alone: ``build_distiller`` makes a loss for a training loop of your own, ``MCTSSampler`` is an
Optuna sampler for any tree-shaped space.

Floors (a module imports only from lower floors; ``docs/architecture.md`` has the contracts)::

    cli
    api               (search, distill, plan, evaluate, predict, export)
    study
    inference
    report
    mmdet_training
    runtime           benchmark                                 training
    search            distill       detectors       data        storage
    mmcv_ops
    config
    space
    outputs           presets                                   outcomes        metrics
    spec
    documents
    errors

The public names are loaded when first used, so that ``import autokd`` loads neither torch nor Optuna.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from autokd.api import evaluate, export, plan, predict
from autokd.callable_packages import VERBS, RootPackage

if TYPE_CHECKING:
    from autokd.api import distill, search
    from autokd.client import Client
    from autokd.config import RunConfig, load_config, load_space
    from autokd.detector_outputs import DetectorOutputs
    from autokd.distill import Distiller, build_distiller
    from autokd.errors import AutoKDError
    from autokd.presets import load_preset, preset_names
    from autokd.search import MCTSSampler
    from autokd.space import Space
    from autokd.spec import DistillerSpec
    from autokd.storage import Results
    from autokd.study import Observer

__version__ = "0.1.0"

_HOMES = {
    "AutoKDError": "autokd.errors",
    "Client": "autokd.client",
    "DetectorOutputs": "autokd.detector_outputs",
    "Distiller": "autokd.distill",
    "DistillerSpec": "autokd.spec",
    "MCTSSampler": "autokd.search",
    "Observer": "autokd.study",
    "Results": "autokd.storage",
    "RunConfig": "autokd.config",
    "Space": "autokd.space",
    "build_distiller": "autokd.distill",
    "load_config": "autokd.config",
    "load_preset": "autokd.presets",
    "load_space": "autokd.config",
    "preset_names": "autokd.presets",
}

__all__ = [
    "AutoKDError",
    "Client",
    "DetectorOutputs",
    "Distiller",
    "DistillerSpec",
    "MCTSSampler",
    "Observer",
    "Results",
    "RunConfig",
    "Space",
    "build_distiller",
    "distill",
    "evaluate",
    "export",
    "load_config",
    "load_preset",
    "load_space",
    "plan",
    "predict",
    "preset_names",
    "search",
]


def __getattr__(name: str) -> Any:
    if name in VERBS:  # the import stores the package here, and RootPackage makes it callable
        return importlib.import_module(f"autokd.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'autokd' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *VERBS})


sys.modules[__name__].__class__ = RootPackage
