"""Which taps a detector of a configuration exposes, without building it."""

from __future__ import annotations

from autokd.config import Detector as DetectorConfig

DENSE_TAPS = ("fpn", "class_logits", "boxes", "proposals", "head_maps", "head")
TWO_STAGE_TAPS = ("fpn", "proposals")


def taps_of(config: DetectorConfig) -> tuple[str, ...]:
    """Names of the taps that a training forward can give, in the order of ``autokd.outputs.TAPS``.

    A two-stage head classifies sampled proposals, a set of its own in each model: they pair with nobody's. Its first
    stage says where objects are all the same. No head of torchvision predicts distributions of edges.
    """
    if config.framework == "mmdet":
        from autokd.detectors.mmdet import mmdet_taps

        return mmdet_taps(config)
    return TWO_STAGE_TAPS if config.architecture == "faster_rcnn" else DENSE_TAPS
