"""Detectors behind the ``DetectorOutputs`` contract: one forward for losses and taps.

Adapters hold a plain model of torchvision or MMDetection, so that its weights load anywhere and nobody else needs
to know how a detector is made. Only this package imports ``torchvision.models``, and only ``mmdet`` within it mmdet.
"""

from autokd.detectors.build import Description, build_detector, describe
from autokd.detectors.contract import Detections, Detector, Target
from autokd.detectors.labels import class_order
from autokd.detectors.mmdet.student_recipe import settle_recipes
from autokd.detectors.pair import (
    FirstTrials,
    Pair,
    check_trainable,
    first_trials,
    pair_of,
    try_detectors,
    unfit_baselines,
)
from autokd.detectors.rows import Rows, rows_of, unpaired_taps
from autokd.detectors.supply import structure_text, taps_of, taps_of_teachers
from autokd.detectors.torchvision.checkpoint import load_weights
from autokd.detectors.torchvision.layout import Layout, choose_layout
from autokd.detectors.torchvision.plain import plain_torchvision_model
from autokd.detectors.torchvision.source import plain_torchvision_source

__all__ = [
    "FirstTrials",
    "Pair",
    "Rows",
    "check_trainable",
    "first_trials",
    "pair_of",
    "rows_of",
    "settle_recipes",
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
    "load_weights",
    "plain_torchvision_model",
    "plain_torchvision_source",
    "structure_text",
    "taps_of",
    "taps_of_teachers",
]
