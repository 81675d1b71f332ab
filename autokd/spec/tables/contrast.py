"""Regions against negatives: the contrastive source and its distances (G-DetKD)."""

from __future__ import annotations

from autokd.spec.operator import CONTRAST, Operator, Parameter

_TEMPERATURE = Parameter("temperature", 0.07, 0.01, 1.0, "divides the similarities")

ROWS: tuple[Operator, ...] = (
    Operator(
        "contrastive", "source", "autokd.distill.sources.contrastive:Contrastive",
        formula="<r_i, t_i>, <r_i, n_k>",
        meaning="each region's similarity to its partner and to negatives (other regions, and a queue)",
        paper="G-DetKD, arXiv:2108.07482, section 3.3", gives=CONTRAST,
        needs_taps=("fpn",), uses_of_student=("proposals",), learns=True, zero_at_equality=False,
        parameters=(Parameter("queue", 1024, 0, 65536, "vectors of earlier batches kept as negatives"),),
    ),
    Operator(
        "info_nce", "distance", "autokd.distill.distances.contrast:InfoNCE", takes=(CONTRAST,),
        formula="mean -log softmax(s / {temperature})_1", meaning="the partner told apart from the negatives",
        paper="CPC, arXiv:1807.03748, eq. 4", parameters=(_TEMPERATURE,), zero_at_equality=False,
    ),
    Operator(
        "smooth_contrastive", "distance", "autokd.distill.distances.contrast:SmoothContrastive", takes=(CONTRAST,),
        formula="mean KL(softmax(t / {temperature}) || softmax(s / {temperature}))",
        meaning="the teacher's own similarities to partner and negatives as soft targets",
        paper="SEED, arXiv:2101.04731, eq. 3", parameters=(_TEMPERATURE,),
    ),
)  # fmt: skip
