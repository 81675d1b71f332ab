"""The file that a user writes, typed: data, teacher, student, space, search, proxy, full, runtime.

Unknown keys are refused, units stand in names, every error names file and line. Torch-free.
"""

from autokd.config.data import CocoData, ShapesData
from autokd.config.detectors import Backbone, Detector, MmdetDetector, TeacherFactors, TorchvisionDetector
from autokd.config.dump import config_data, config_digest, config_yaml
from autokd.config.load import load_config, load_space
from autokd.config.model import RunConfig, RuntimeConfig, SearchConfig
from autokd.config.proxy import ProxyRecipe, WarmStart
from autokd.config.recipes import FullRecipe, Recipe, TeacherRecipe
from autokd.config.section import NO_DISTILLATION

__all__ = [
    "NO_DISTILLATION",
    "Backbone",
    "CocoData",
    "Detector",
    "FullRecipe",
    "MmdetDetector",
    "ProxyRecipe",
    "Recipe",
    "RunConfig",
    "RuntimeConfig",
    "SearchConfig",
    "ShapesData",
    "TeacherFactors",
    "TeacherRecipe",
    "TorchvisionDetector",
    "WarmStart",
    "config_data",
    "config_digest",
    "config_yaml",
    "load_config",
    "load_space",
]
