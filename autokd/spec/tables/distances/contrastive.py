"""Contrastive distances, for regions against negatives."""

from __future__ import annotations

from autokd.spec.operator import CONTRAST, Operator, Parameter

_MODULE = "autokd.distill.distances.contrastive"
_TEMPERATURE = Parameter("temperature", 0.07, 0.01, 1.0, "divides the similarities")

ROWS: tuple[Operator, ...] = (
    Operator(
        "info_nce", "distance", f"{_MODULE}:InfoNCE", takes=(CONTRAST,),
        formula="mean -log softmax(s / {temperature})_1",
        meaning="cross entropy of the partner among partner and negatives",
        paper="CPC, arXiv:1807.03748, eq. 4", parameters=(_TEMPERATURE,), zero_at_equality=False,
    ),
    Operator(
        "smooth_contrastive", "distance", f"{_MODULE}:SmoothContrastive", takes=(CONTRAST,),
        formula="mean KL(softmax(t / {temperature}) || softmax(s / {temperature}))",
        meaning="KL divergence from the softmax of the teacher's similarities to that of the student's",
        paper="SEED, arXiv:2101.04731, eq. 3", parameters=(_TEMPERATURE,),
    ),
)  # fmt: skip
