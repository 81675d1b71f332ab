"""Regions that are matched softly with all levels of the student (G-DetKD)."""

from __future__ import annotations

from autokd.spec.operator import REGIONS, Operator, Parameter
from autokd.spec.tables.sources.maps import REGION_WEIGHTS

_MODULE = "autokd.distill.sources.semantic_guided"

ROWS: tuple[Operator, ...] = (
    Operator(
        "semantic_guided", "source", f"{_MODULE}:SemanticGuided",
        formula="RoI{size}(F_T), sum_l alpha_l RoI{size}(F_S,l)",
        meaning="each region of the teacher against a mixture of the student's levels, weighted by learned similarity",
        paper="G-DetKD, arXiv:2108.07482, section 3.2", gives=REGIONS, side="size",
        needs_taps=("fpn",), uses_of_student=("proposals",), learns=True, zero_at_equality=False,
        parameters=(Parameter("size", 7, 1, 14, "cells of a region, per side"), REGION_WEIGHTS),
    ),
)  # fmt: skip
