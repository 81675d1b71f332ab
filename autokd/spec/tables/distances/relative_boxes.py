"""Distances between boxes relative to the image."""

from __future__ import annotations

from autokd.spec.operator import BOXES, Operator

_MODULE = "autokd.distill.distances.relative_boxes"

ROWS: tuple[Operator, ...] = (
    Operator(
        "box_l1", "distance", f"{_MODULE}:BoxL1", takes=(BOXES,),
        formula="mean |s - t|_1",
        meaning="sum of the absolute differences of center and size, relative to the image",
        paper="DETR, arXiv:2005.12872, section 3.1",
    ),
)  # fmt: skip
