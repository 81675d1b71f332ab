"""Predictions of the teacher's head for the student's maps (CrossKD)."""

from __future__ import annotations

from autokd.spec.operator import BOXES, LOGITS, Operator

_MODULE = "autokd.distill.sources.crossed_predictions"

ROWS: tuple[Operator, ...] = (
    Operator(
        "crossed_logits", "source", f"{_MODULE}:CrossedLogits", gives=LOGITS, learns=True, zero_at_equality=False,
        channels_are="classes",
        needs_of_student=("head_maps",), needs_of_teacher=("head", "class_logits"),
        formula="Z by the teacher's head",
        meaning=(
            "class logits that the teacher's frozen head predicts from the student's head maps, standardized to the "
            "teacher's statistics"
        ),
        paper="CrossKD, arXiv:2306.11369, section 3.2",
    ),
    Operator(
        "crossed_boxes", "source", f"{_MODULE}:CrossedBoxes", gives=BOXES, learns=True, zero_at_equality=False,
        needs_of_student=("head_maps",), needs_of_teacher=("head", "class_logits", "boxes"),
        formula="boxes by the teacher's head|top score",
        meaning=(
            "boxes that the teacher's frozen head predicts from the student's head maps, standardized to the "
            "teacher's statistics"
        ),
        paper="CrossKD, arXiv:2306.11369, section 3.2",
    ),
)  # fmt: skip
