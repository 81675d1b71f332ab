"""Which taps a detector of a configuration exposes, without building it."""

from __future__ import annotations

from autokd.config import Detector as DetectorConfig
from autokd.outputs import TAPS


def taps_of(config: DetectorConfig) -> tuple[str, ...]:
    """Names of the taps that a training forward gives.

    A two-stage head classifies sampled proposals, a set of its own in each model: they pair with nobody's.
    """
    return ("fpn",) if config.architecture == "faster_rcnn" else TAPS
