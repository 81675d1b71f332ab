"""What the tests of ``autokd.distill`` share: the samples of the public suite, and a few of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.detector_outputs import DetectorOutputs
from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import Distance
from autokd.distill.statistics import mean
from autokd.distill.term_inputs import TermInputs
from autokd.testing.operators.forms import covering_forms, follows, spec_of, well_typed_forms
from autokd.testing.operators.samples import (
    FLAT,
    LEVELS,
    NO_INPUTS,
    NUM_BINS,
    NUM_CLASSES,
    OF_ALL_CLASSES,
    TARGETS,
    FixedRegion,
    TinyHead,
    as_layout,
    boxes,
    inputs_of,
    instances,
    like,
    operator,
    outputs,
    piece,
    weights_as,
    with_predictions,
)

torch.set_num_threads(1)


def bare(given: DetectorOutputs) -> DetectorOutputs:
    """The pyramid alone, as a detector gives it that exposes nothing else."""
    return DetectorOutputs(given.pyramid, given.strides, losses=given.losses, image_size_px=given.image_size_px)


class HalfL2(Distance):
    """A distance as another package would bring it."""

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        return mean((features.student_SCHW - features.teacher_SCHW).square(), features.weights_SHW) / 2


class Signed(Distance):
    """A distance that may be negative."""

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        return mean(features.student_SCHW - features.teacher_SCHW, features.weights_SHW)


class Offset(Distance):
    """A distance that is not 0 at equality."""

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        return (features.student_SCHW - features.teacher_SCHW).square().sum() + 1


__all__ = [
    "FLAT",
    "LEVELS",
    "NO_INPUTS",
    "NUM_BINS",
    "NUM_CLASSES",
    "OF_ALL_CLASSES",
    "TARGETS",
    "FixedRegion",
    "Offset",
    "Signed",
    "HalfL2",
    "TinyHead",
    "as_layout",
    "bare",
    "boxes",
    "covering_forms",
    "follows",
    "inputs_of",
    "instances",
    "like",
    "operator",
    "outputs",
    "piece",
    "spec_of",
    "weights_as",
    "well_typed_forms",
    "with_predictions",
]
