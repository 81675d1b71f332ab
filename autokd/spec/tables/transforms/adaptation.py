"""Adaptation layers: small learned maps of the student's side alone (FBKD)."""

from __future__ import annotations

from autokd.spec.operator import SCALAR_MAP, Operator, Parameter

_MODULE = "autokd.distill.transforms.adaptation"

ROWS: tuple[Operator, ...] = (
    Operator(
        "student_projection", "transform", f"{_MODULE}:StudentProjection",
        formula="A s", meaning="the student's map through a learned 1x1 convolution, which starts as the identity",
        paper="FBKD, ICLR 2021 (released code)", gives_same=True, learns=True, zero_at_equality=False,
    ),
    Operator(
        "adapted_attention", "transform", f"{_MODULE}:AdaptedAttention",
        formula=(
            "(A s, t) sqrt(N softmax_s(mean_c(|s| + |t|) / {temperature}) "
            "C softmax_c(mean_s(|s| + |t|) / {temperature}))"
        ),
        meaning="`shared_attention` of both maps, on the student's map through a learned 1x1 convolution",
        paper="FBKD, ICLR 2021, section 3.1", gives_same=True, learns=True, zero_at_equality=False,
        parameters=(Parameter("temperature", 0.1, 0.01, 100.0, "divides the magnitudes before the softmax"),),
    ),
    Operator(
        "adapted_channel_mean", "transform", f"{_MODULE}:AdaptedChannelMean",
        formula="conv3(mean_c |s|), mean_c |t|",
        meaning="mean over the channels of |x|; the student's through a learned 3x3 convolution",
        paper="FBKD, ICLR 2021 (released code)", gives=SCALAR_MAP, learns=True, zero_at_equality=False,
    ),
    Operator(
        "adapted_cell_mean", "transform", f"{_MODULE}:AdaptedCellMean",
        formula="A mean_s |s|, mean_s |t|",
        meaning="mean over the cells of |x|, one number a channel; the student's through a learned linear map",
        paper="FBKD, ICLR 2021 (released code)", gives=SCALAR_MAP, learns=True, zero_at_equality=False,
    ),
)  # fmt: skip
