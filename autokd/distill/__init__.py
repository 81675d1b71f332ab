"""The loss itself: a distiller built from a spec for a pair of detectors.

    feature_pair   what flows through a term        term_inputs   what all terms of a step read
    operators      the three base classes           sources, transforms, distances   one class a row
    geometry       levels, grids, boxes, regions    weighting     relative weights, levels, several teachers
    build          spec -> distiller                distiller     the module

The names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autokd.distill.build import build_distiller
    from autokd.distill.distiller import Distiller, DistillResult, TermValue
    from autokd.distill.teacher_ensemble import TeacherEnsemble, build_ensemble

_HOMES = {
    "DistillResult": "autokd.distill.distiller",
    "Distiller": "autokd.distill.distiller",
    "TeacherEnsemble": "autokd.distill.teacher_ensemble",
    "TermValue": "autokd.distill.distiller",
    "build_distiller": "autokd.distill.build",
    "build_ensemble": "autokd.distill.teacher_ensemble",
}

__all__ = ["DistillResult", "Distiller", "TeacherEnsemble", "TermValue", "build_distiller", "build_ensemble"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autokd.distill' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
