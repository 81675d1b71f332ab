"""Attention made jointly: by the samples of a batch, by the teacher, or by both sides."""

from __future__ import annotations

from autokd.spec.operator import Operator, Parameter, effects

_MODULE = "autokd.distill.transforms.joint_attention"
_SHARPNESS = Parameter("temperature", 0.5, 0.01, 100.0, "divides the magnitudes before the softmax; smaller is sharper")

ROWS: tuple[Operator, ...] = (
    Operator(
        "sample_attention", "transform", f"{_MODULE}:SampleAttention", group="attention",
        formula="x * S softmax_b(mean_cs|x| / {temperature})",
        meaning="each sample times its softmax over the samples' mean magnitudes",
        paper="DetKDS, ICML 2024", parameters=(_SHARPNESS,), needs_batch=True, gives_same=True,
        adds=effects("cell_scale", "sample_channel_scale"), keeps=effects("sample_channel_affine"),
    ),
    Operator(
        "teacher_attention", "transform", f"{_MODULE}:TeacherAttention", group="attention",
        formula="x sqrt(N softmax_s(mean_c|t| / {temperature}) C softmax_c(mean_s|t| / {temperature}))",
        meaning="both sides times the root of the teacher's attention over cells and channels",
        paper="FGD, arXiv:2111.11837, section 3.1", parameters=(_SHARPNESS,), gives_same=True,
    ),
    Operator(
        "shared_attention", "transform", f"{_MODULE}:SharedAttention", group="attention",
        formula="x sqrt(N softmax_s(mean_c(|s| + |t|) / {temperature}) C softmax_c(mean_s(|s| + |t|) / {temperature}))",
        meaning="both sides times the root of the attention of their summed magnitudes",
        paper="FBKD, ICLR 2021, section 3.1", gives_same=True,
        parameters=(Parameter("temperature", 0.1, 0.01, 100.0, "divides the magnitudes before the softmax"),),
    ),
)  # fmt: skip
