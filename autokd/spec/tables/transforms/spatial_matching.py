"""Learned matching of cells, for maps that do not align."""

from __future__ import annotations

from autokd.spec.operator import MAP, Operator, Parameter

_MODULE = "autokd.distill.transforms.spatial_matching"

ROWS: tuple[Operator, ...] = (
    Operator(
        "spatial_match", "transform", f"{_MODULE}:SpatialMatch", takes=(MAP,),
        formula="sum_i softmax_i(<e_g, x_i> / sqrt(C) - |p_g - i|^2 / (2 r^2)) x_i, {side} x {side} places g",
        meaning=(
            "the cells that belong to each place of a learned grid that both sides share; the student's places are "
            "learned, so that shifted maps can match"
        ),
        paper="after SAM (spatial alignment via matching), arXiv:2309.11081",
        gives_same=True, learns=True, zero_at_equality=False, compares_cells=True,
        parameters=(Parameter("side", 8, 2, 32, "places of the grid, per side"),),
    ),
)  # fmt: skip
