"""Which adapter a model of MMDetection gets, and which taps a config will give, without building it."""

from __future__ import annotations

from autokd.config import MmdetDetector
from autokd.detectors.mmdet.adapter import MmdetAdapter
from autokd.detectors.mmdet.config_file import read_config
from autokd.detectors.mmdet.dense import OneStageAdapter, dense_taps
from autokd.detectors.mmdet.query import QueryAdapter, query_taps
from autokd.detectors.mmdet.two_stage import TwoStageAdapter
from autokd.errors import DetectorError

_FAMILIES: dict[str, type[MmdetAdapter]] = {
    "SingleStageDetector": OneStageAdapter,
    "TwoStageDetector": TwoStageAdapter,
    "DetectionTransformer": QueryAdapter,
}
"""Base class in mmdet -> adapter."""

_NO_CLASSES = ("RPN",)
"""A first stage alone tells no classes apart."""


def family_of(model_class: type, where: str) -> type[MmdetAdapter]:
    """The adapter of a class of mmdet's detectors; DetectorError for one that finds something other than boxes."""
    for base in model_class.__mro__:
        if base.__name__ in _FAMILIES and model_class.__name__ not in _NO_CLASSES:
            return _FAMILIES[base.__name__]
    raise DetectorError(
        f"{where}: {model_class.__name__} is none of MMDetection's one-stage, two-stage or query-based box detectors. "
        "Take a config of one of these."
    )


def mmdet_taps(section: MmdetDetector) -> tuple[str, ...]:
    """Names of the taps that a training forward gives. Reads the config, and thereby runs it."""
    config = read_config(section)
    from mmdet.registry import MODELS

    model_class = MODELS.get(config.model["type"]) if isinstance(config.model["type"], str) else config.model["type"]
    if model_class is None:
        raise DetectorError(f"{section.config}: MMDetection has no model of type {config.model['type']!r}.")
    family = family_of(model_class, section.config)
    if family is TwoStageAdapter:
        return ("fpn", "proposals")
    head = config.model["bbox_head"]["type"]
    taps_of_head = query_taps if family is QueryAdapter else dense_taps
    return ("fpn", *taps_of_head(head if isinstance(head, str) else head.__name__))
