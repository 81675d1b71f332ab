"""MMDetection 3.x models behind the ``DetectorOutputs`` contract. Nothing outside this package imports mmdet.

A model is mmdet's own, built from the user's config; an adapter replaces none of its parts. It computes the maps, lets
mmdet's ``loss`` and ``predict`` start from these very tensors, and records the outputs of the heads meanwhile
(``intercept``). So losses are mmdet's to the last bit, and weights load in ``mmdet.apis.init_detector``.
"""

from autokd.detectors.mmdet.adapter import MmdetAdapter
from autokd.detectors.mmdet.build import adapter_of, build_mmdet_detector, build_mmdet_model
from autokd.detectors.mmdet.capabilities import mmdet_prediction_layout, mmdet_taps
from autokd.detectors.mmdet.checkpoint import read_checkpoint
from autokd.detectors.mmdet.config_file import config_text, read_config, resolve_config
from autokd.detectors.mmdet.export import export_student
from autokd.detectors.mmdet.recipe import recipe_of_config

__all__ = [
    "MmdetAdapter",
    "adapter_of",
    "build_mmdet_detector",
    "build_mmdet_model",
    "config_text",
    "export_student",
    "mmdet_prediction_layout",
    "mmdet_taps",
    "read_checkpoint",
    "read_config",
    "recipe_of_config",
    "resolve_config",
]
