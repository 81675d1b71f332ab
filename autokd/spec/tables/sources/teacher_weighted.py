"""Feature maps weighted by what the teacher predicts."""

from __future__ import annotations

from autokd.spec.operator import Operator, Parameter, effects

_MODULE = "autokd.distill.sources.teacher_weighted"

ROWS: tuple[Operator, ...] = (
    Operator(
        "teacher_confidence", "source", f"{_MODULE}:TeacherConfidence",
        formula="F|top score of the cell",
        meaning="every cell of the map, weighted by the teacher's top class probability there",
        paper="Ultralytics, knowledge distillation, 2026; after PGD, arXiv:2203.05469", by_level=True,
        needs_taps=("fpn",), needs_of_teacher=("class_logits",), needs_cells_of_teacher=True,
    ),
    Operator(
        "object_similarity", "source", f"{_MODULE}:ObjectSimilarity",
        formula="m F, m = sum_n score_n IoU_n cos(F_T at n, F_T)",
        meaning=(
            "the map times a mask: how similar the teacher's vector of a cell is to those at its best boxes, each "
            "weighted by its score and its IoU with an object"
        ),
        paper="TAO Toolkit's IOU criterion; DETRDistill, arXiv:2211.10156, section 3.3", by_level=True,
        needs_taps=("fpn",), needs_of_teacher=("class_logits", "boxes"), adds=effects("cell_scale"),
        parameters=(Parameter("candidates", 300, 1, 1000, "boxes of an image, the best by the teacher's score"),),
    ),
)  # fmt: skip
