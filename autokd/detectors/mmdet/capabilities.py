"""Which adapter a model of MMDetection gets, and which taps a config will give, without building it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autokd.config import MmdetDetector
from autokd.detectors.candidates import PredictionLayout, grid_cells
from autokd.detectors.mmdet.adapter import MmdetAdapter
from autokd.detectors.mmdet.config_file import read_config
from autokd.detectors.mmdet.dense import OneStageAdapter, dense_taps
from autokd.detectors.mmdet.library import PROGRAM_ERRORS
from autokd.detectors.mmdet.query import QUERY_HEADS, QueryAdapter, query_taps
from autokd.detectors.mmdet.two_stage import TwoStageAdapter
from autokd.errors import DetectorError
from autokd.spec.families import DetectorFamily

_FAMILIES: dict[str, type[MmdetAdapter]] = {
    "SingleStageDetector": OneStageAdapter,
    "TwoStageDetector": TwoStageAdapter,
    "DetectionTransformer": QueryAdapter,
}
"""Base class in mmdet -> adapter."""

_EVEN_NECKS = ("YOLOXPAFPN", "CSPNeXtPAFPN")
"""Necks that join neighboring levels, and need maps of even sides."""

_NO_CLASSES = ("RPN",)
"""Models that do not classify: a first stage alone."""


def family_of(model_class: type, where: str) -> type[MmdetAdapter]:
    """Return the adapter of a class of mmdet's detectors.

    Raises:
        DetectorError: if the model finds something other than boxes with classes.
    """
    for base in model_class.__mro__:
        if base.__name__ in _FAMILIES and model_class.__name__ not in _NO_CLASSES:
            return _FAMILIES[base.__name__]
    raise DetectorError(
        f"{where}: {model_class.__name__} is none of MMDetection's one-stage, two-stage or query-based box detectors. "
        "Take a config of one of these."
    )


def mmdet_taps(section: MmdetDetector) -> tuple[str, ...]:
    """Return the names of the taps that a training forward gives. Reads the config, and thereby runs it."""
    model = read_config(section).model
    adapter = family_of(_model_class(model, section.config), section.config)
    if adapter is TwoStageAdapter:
        return ("fpn", "proposals")
    taps_of_head = query_taps if adapter is QueryAdapter else dense_taps
    return ("fpn", *taps_of_head(_name_of(model["bbox_head"]["type"])))


def mmdet_detector_family(section: MmdetDetector) -> DetectorFamily | None:
    """Return the family of a config's detector. Reads the config, and thereby runs it."""
    return detector_family_of_model(read_config(section).model, section.config)


def detector_family_of_model(model: Mapping[str, Any], where: str) -> DetectorFamily | None:
    """Return the family of the detector that the ``model`` of a config describes.

    Args:
        model: the model's part of a config.
        where: its config, for errors.

    Returns:
        The family; None for a head on queries.

    Raises:
        DetectorError: if the model finds something other than boxes with classes.
    """
    adapter = family_of(_model_class(model, where), where)
    if adapter is TwoStageAdapter:
        return "two_stage"
    if adapter is QueryAdapter:
        return None
    return "anchor_based" if _has_anchors(model["bbox_head"]) else "anchor_free"


def _has_anchors(head: Mapping[str, Any]) -> bool:
    """Return whether a dense head regresses from anchor boxes.

    RTMDet names its points an ``anchor_generator``, and TOOD is an anchor head that may be configured as none.
    """
    if head.get("anchor_type") == "anchor_free":
        return False
    if "anchor_generator" in head:
        return "Point" not in _name_of(head["anchor_generator"]["type"])
    from mmdet.registry import MODELS

    kind = MODELS.get(head["type"]) if isinstance(head["type"], str) else head["type"]
    return kind is not None and any(base.__name__ == "AnchorHead" for base in kind.__mro__)


def _model_class(model: Mapping[str, Any], where: str) -> type:
    from mmdet.registry import MODELS

    model_class: type | None = MODELS.get(model["type"]) if isinstance(model["type"], str) else model["type"]
    if model_class is None:
        raise DetectorError(f"{where}: MMDetection has no model of type {model['type']!r}.")
    return model_class


def mmdet_prediction_layout(section: MmdetDetector, image_size_px: tuple[int, int]) -> PredictionLayout | None:
    """Return how a config's detector lists its candidates; the head is built, without the rest of the model.

    Returns:
        The layout for images of (height, width) pixels; None if the detector has no class logits.

    Raises:
        DetectorError: if the head cannot be built, or says no strides.
    """
    taps = mmdet_taps(section)
    if "class_logits" not in taps:
        return None
    model = read_config(section).model
    if _name_of(model["bbox_head"]["type"]) in QUERY_HEADS:
        return PredictionLayout(())
    import torch
    from mmdet.registry import MODELS

    try:
        with torch.random.fork_rng():
            head = MODELS.build(model["bbox_head"])
        priors = head.prior_generator
        strides = [stride[0] if isinstance(stride, (tuple, list)) else stride for stride in priors.strides]
    except (*PROGRAM_ERRORS, NotImplementedError) as error:
        raise DetectorError(f"{section.config}: the head cannot be built ({type(error).__name__}: {error}).") from error
    number = int(priors.num_base_priors[0])
    anchors: tuple[tuple[float, float], ...] = ()
    if number > 1:
        sides = (priors.base_anchors[0][:, 2:] - priors.base_anchors[0][:, :2]) / strides[0]
        anchors = tuple((float(width), float(height)) for width, height in sides)
    multiple = model.get("data_preprocessor", {}).get("pad_size_divisor", 1)
    if multiple < max(strides) and _name_of(model.get("neck", {}).get("type", "")) in _EVEN_NECKS:
        multiple = max(strides)  # as ``MmdetAdapter`` pads for these necks
    num_bins = head.reg_max + 1 if "edge_logits" in taps else 0
    return PredictionLayout(grid_cells(strides, image_size_px, multiple), number, anchors, num_bins)


def _name_of(kind: str | type) -> str:
    return kind if isinstance(kind, str) else kind.__name__
