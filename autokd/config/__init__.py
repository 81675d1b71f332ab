"""The file that a user writes, typed: data, teacher, student, space, search, proxy, full, runtime.

Unknown keys are refused, units stand in names, every error names file and line. Torch-free.
"""

from autokd.config.load import load_config, load_space
from autokd.config.model import (
    Backbone,
    CocoData,
    Detector,
    FullRecipe,
    ProxyRecipe,
    Recipe,
    RunConfig,
    RuntimeConfig,
    SearchConfig,
    ShapesData,
    TeacherRecipe,
    TorchvisionDetector,
    WarmStart,
)

__all__ = [
    "Backbone",
    "CocoData",
    "Detector",
    "FullRecipe",
    "ProxyRecipe",
    "Recipe",
    "RunConfig",
    "RuntimeConfig",
    "SearchConfig",
    "ShapesData",
    "TeacherRecipe",
    "TorchvisionDetector",
    "WarmStart",
    "load_config",
    "load_space",
]
