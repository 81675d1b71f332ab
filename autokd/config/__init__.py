"""The file that a user writes as typed values: data, teacher, student, space, search, proxy, full, runtime, cache.

``load_config`` reads and checks it; every error names file and line. ``autokd.detectors.resolve`` makes a
``ResolvedConfig`` of it, from which trainings and digests are made. Torch-free.
"""

from autokd.config.backbone_section import BackboneTeacher
from autokd.config.cache import CacheConfig
from autokd.config.data import CocoData, Data, ShapesData, SplitFolders, VocData, YoloData
from autokd.config.detector_sections import DetectorSection, MmdetDetector
from autokd.config.detectors import Detector, TeacherWeights
from autokd.config.dump import config_data, config_digest, config_identity, config_yaml
from autokd.config.frameworks import FrameworkRow, framework_row, register_framework, registered_framework
from autokd.config.layouts import KNOWN_LAYOUTS, with_layout
from autokd.config.load import load_config, load_space
from autokd.config.model import DEFAULT_BUDGET, RunConfig, RuntimeConfig, SearchConfig
from autokd.config.proxy import ProxyRecipe, WarmStart
from autokd.config.recipes import FullRecipe, Recipe, TeacherOutputs, TeacherRecipe
from autokd.config.resolved import (
    ResolvedConfig,
    StudentRecipes,
    complete_recipes,
    given_to_full,
    given_to_proxy,
)
from autokd.config.torchvision_section import BUILDERS, Architecture, Backbone, TorchvisionDetector, is_weights_name
from autokd.config.transformers_section import TransformersDetector

__all__ = [
    "DEFAULT_BUDGET",
    "BUILDERS",
    "KNOWN_LAYOUTS",
    "Architecture",
    "Backbone",
    "BackboneTeacher",
    "CacheConfig",
    "CocoData",
    "Data",
    "Detector",
    "DetectorSection",
    "FrameworkRow",
    "FullRecipe",
    "MmdetDetector",
    "ProxyRecipe",
    "Recipe",
    "ResolvedConfig",
    "RunConfig",
    "RuntimeConfig",
    "SearchConfig",
    "ShapesData",
    "SplitFolders",
    "StudentRecipes",
    "TeacherOutputs",
    "TeacherRecipe",
    "TeacherWeights",
    "TorchvisionDetector",
    "TransformersDetector",
    "VocData",
    "WarmStart",
    "YoloData",
    "complete_recipes",
    "config_data",
    "config_digest",
    "config_identity",
    "config_yaml",
    "framework_row",
    "given_to_full",
    "given_to_proxy",
    "is_weights_name",
    "load_config",
    "load_space",
    "register_framework",
    "registered_framework",
    "with_layout",
]
