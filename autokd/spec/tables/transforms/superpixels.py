"""Superpixels of the teacher's map."""

from __future__ import annotations

from autokd.spec.operator import MAP, Operator, Parameter

_MODULE = "autokd.distill.transforms.superpixels"

ROWS: tuple[Operator, ...] = (
    Operator(
        "superpixels", "transform", f"{_MODULE}:Superpixels", takes=(MAP,),
        formula="mean of x over the superpixel of the cell, by |t_i - t_g|^2 / var t + {compactness} |p_i - p_g|^2",
        meaning=(
            "the mean of each superpixel at all of its cells; superpixels are clusters of the teacher's cells by "
            "vector and place, from squares of {side} x {side} cells"
        ),
        paper="after PointDC, arXiv:2304.08965 (super-voxels); SLIC, TPAMI 2012",
        gives_same=True, compares_cells=True,
        parameters=(
            Parameter("side", 4, 2, 32, "cells of a square from which a superpixel begins, per side"),
            Parameter("compactness", 1.0, 0.01, 100.0, "weight of places beside vectors; greater is squarer"),
        ),
    ),
)  # fmt: skip
