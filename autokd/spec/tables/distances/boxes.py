"""Distances between boxes."""

from __future__ import annotations

from autokd.spec.operator import BOXES, Operator

_MODULE = "autokd.distill.distances.boxes"

ROWS: tuple[Operator, ...] = (
    Operator(
        "iou", "distance", f"{_MODULE}:IoU", takes=(BOXES,),
        formula="mean 1 - IoU(s, t)", meaning="one minus intersection over union",
        paper="BCKD, arXiv:2308.14286, section 3.3",
    ),
    Operator(
        "giou", "distance", f"{_MODULE}:GIoU", takes=(BOXES,),
        formula="mean 1 - GIoU(s, t)",
        meaning="one minus IoU, plus the part of the enclosing box that neither box covers",
        paper="Generalized IoU, arXiv:1902.09630",
    ),
)  # fmt: skip
