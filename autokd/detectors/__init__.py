"""Detectors behind the ``DetectorOutputs`` contract: one forward for losses and taps.

A framework (``Framework``) builds detectors from configuration sections. Its adapters (``Detector``) hold a plain model
of the framework, so that weights load there without AutoKD. Only this package imports ``torchvision.models``, and only
its folder ``mmdet`` imports mmdet.
"""

from autokd.detectors.build import Description, build_detector, describe
from autokd.detectors.candidates import PredictionLayout, grid_cells
from autokd.detectors.capabilities import detector_family_of, structure_text, taps_of, taps_of_teachers
from autokd.detectors.contract import Detections, Detector, Target
from autokd.detectors.framework import ConfigRecipe, Framework, framework_of
from autokd.detectors.labels import class_order
from autokd.detectors.pair import (
    FirstTrials,
    Pair,
    check_trainable,
    family_notes,
    first_trials,
    pair_of,
    try_detectors,
    unfit_baselines,
)
from autokd.detectors.prediction_layout import prediction_layout_of, unpaired_taps
from autokd.detectors.resolve import resolve
from autokd.detectors.torchvision.layout import Layout, choose_layout
from autokd.detectors.torchvision.plain import plain_torchvision_model
from autokd.detectors.torchvision.pretrained import found_weights, weight_folders
from autokd.detectors.torchvision.source import plain_torchvision_source
from autokd.detectors.train_pipeline import AugmentedImage, ImageSource, LabeledImage, TrainPipeline
from autokd.detectors.weights import load_weights

__all__ = [
    "AugmentedImage",
    "ConfigRecipe",
    "FirstTrials",
    "Framework",
    "ImageSource",
    "LabeledImage",
    "Pair",
    "PredictionLayout",
    "TrainPipeline",
    "check_trainable",
    "detector_family_of",
    "family_notes",
    "first_trials",
    "framework_of",
    "grid_cells",
    "pair_of",
    "prediction_layout_of",
    "resolve",
    "try_detectors",
    "unfit_baselines",
    "unpaired_taps",
    "Description",
    "Detections",
    "Detector",
    "Layout",
    "Target",
    "build_detector",
    "choose_layout",
    "class_order",
    "describe",
    "found_weights",
    "load_weights",
    "plain_torchvision_model",
    "plain_torchvision_source",
    "structure_text",
    "taps_of",
    "taps_of_teachers",
    "weight_folders",
]
