"""What a configuration says of its detector without building it: its taps, and what decides its structure."""

from __future__ import annotations

from autokd.config import Detector as DetectorConfig
from autokd.config import RunConfig

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


def taps_of_teachers(config: RunConfig) -> tuple[tuple[str, ...], ...]:
    """``taps_of`` of every teacher; a student that may be promoted comes last."""
    sections = [*config.teachers, *([config.student] if config.search.promote_after else [])]
    return tuple(map(taps_of, sections))


def structure_text(config: DetectorConfig) -> str:
    """What of a section decides the model's structure, for keys of caches: equal texts take each other's weights.

    Of MMDetection it is the content of the config file, which is run, not its path.
    """
    if config.framework == "mmdet":
        from autokd.detectors.mmdet import config_text

        return config_text(config)
    return config.model_dump_json(exclude={"checkpoint", "train"})
