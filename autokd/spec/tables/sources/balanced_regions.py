"""Feature maps whose objects, false positives and background are balanced (DistillBEV)."""

from __future__ import annotations

from autokd.spec.operator import Operator, Parameter

_MODULE = "autokd.distill.sources.balanced_regions"

ROWS: tuple[Operator, ...] = (
    Operator(
        "balanced_regions", "source", f"{_MODULE}:BalancedRegions",
        formula="F by 1/|box|, {false_positives} score/|false box|, {background}/|rest|",
        meaning=(
            "every cell; the cells of an object have weights that sum to 1, those of a box that the student finds "
            "without an object weights that sum to `false_positives` times its score, the rest to `background`"
        ),
        paper="after DistillBEV, arXiv:2309.15109", needs_taps=("fpn",), by_level=True,
        needs_of_student=("class_logits", "boxes"),
        parameters=(
            Parameter("false_positives", 1.0, 0.01, 10.0, "sum of a false box's weights at score 1"),
            Parameter("background", 0.5, 0.01, 10.0, "sum of the weights of the cells in no box"),
            Parameter("least_score", 0.3, 0.01, 1.0, "probability (sigmoid) from which on a box counts as found"),
        ),
    ),
)  # fmt: skip
