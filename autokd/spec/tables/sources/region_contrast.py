"""Regions against their partner and negatives (G-DetKD)."""

from __future__ import annotations

from autokd.spec.operator import CONTRAST, Operator, Parameter

_MODULE = "autokd.distill.sources.region_contrast"

ROWS: tuple[Operator, ...] = (
    Operator(
        "contrastive", "source", f"{_MODULE}:Contrastive",
        formula="<r_i, t_i>, <r_i, n_k>",
        meaning=(
            "similarities of each region to its partner in the teacher and to negatives (other regions, and a queue "
            "of earlier ones)"
        ),
        paper="G-DetKD, arXiv:2108.07482, section 3.3", gives=CONTRAST,
        needs_taps=("fpn",), uses_of_student=("proposals",), learns=True, zero_at_equality=False,
        parameters=(Parameter("queue", 1024, 0, 65536, "vectors of earlier batches kept as negatives"),),
    ),
)  # fmt: skip
