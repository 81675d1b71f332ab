"""Sources that look at what the two detectors predict, candidate box by candidate box: classes, boxes, edges.

Student and teacher must have the same candidates in the same order (heads of one layout on inputs of one size); that is
checked when the distiller is built. One class a row of ``tables/predictions``.

Legend: B images, A candidate boxes of an image, K classes, E bins of an edge's distribution, M the most
ground-truth boxes of an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autokd.distill.batch import Batch
from autokd.distill.grid import Grid
from autokd.distill.knowledge import Knowledge
from autokd.distill.operators import BuildContext, Source
from autokd.distill.regions import Given, Region
from autokd.distill.sources.region_sets import pairwise_iou
from autokd.errors import DistillError
from autokd.outputs import DetectorOutputs
from autokd.spec.operator import BOXES, LOGITS, Layout

POSITIVE_IOU = 0.5
"""A candidate is positive from this overlap of the teacher's box with a ground-truth box on."""
_AXES = {
    "class_logits": "(candidates, classes)",
    "boxes": "(candidates, 4)",
    "edge_logits": "(candidates, 4, bins)",
}


class ClassLogits(Source):
    """The class logits of every candidate, equally; one piece for all levels.

    Layout logits. The candidates have no labels. Hinton et al., arXiv:1503.02531.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        require_equal_candidates(context, "class_logits")

    def forward(self, batch: Batch) -> tuple[Knowledge, ...]:
        student_BAK, teacher_BAK = batch.tap("class_logits")
        return (candidate_knowledge(student_BAK, teacher_BAK, LOGITS),)


class PositiveLogits(Source):
    """The class logits of the candidates that see an object, labelled with its class.

    A candidate is positive where the box that the *teacher* decodes for it overlaps a ground-truth box with an
    IoU of at least 0.5: that needs no knowledge of either detector's own assignment, and is the same for every student.
    Layout logits. LD, arXiv:2102.12252, section 3.3 (its classification distillation on the main region).
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        require_equal_candidates(context, "class_logits", "boxes")

    def forward(self, batch: Batch) -> tuple[Knowledge, ...]:
        student_BAK, teacher_BAK = batch.tap("class_logits")
        labels_BA = positives(batch).labels_BA
        weights_B1A = (labels_BA >= 0).to(teacher_BAK.dtype)[:, None]
        return (
            candidate_knowledge(student_BAK, teacher_BAK, LOGITS, Given(weights_B1A), labels_SHW=labels_BA[:, None]),
        )


class Localisation(Source):
    """The decoded boxes of every candidate, weighted by the teacher's top class probability (sigmoid).

    Layout boxes. BCKD, arXiv:2308.14286, section 3.3; CrossKD, arXiv:2306.11369, section 3.3.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        require_equal_candidates(context, "boxes", "class_logits")

    def forward(self, batch: Batch) -> tuple[Knowledge, ...]:
        scores_B1A = top_scores(batch.tap("class_logits")[1])[:, None]
        return (candidate_knowledge(*batch.tap("boxes"), BOXES, Given(scores_B1A)),)


class Edges(Source):
    """The bins of each edge of the positive candidates, weighted by the teacher's top class probability (sigmoid).

    Layout logits (B, E, 1, 4 A): a bin is a class, and each edge (left, top, right, bottom) is a cell of its own.
    Positive as in ``PositiveLogits``. LD, arXiv:2102.12252, eqs. 3-5.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        require_equal_candidates(context, "edge_logits", "boxes", "class_logits")

    def forward(self, batch: Batch) -> tuple[Knowledge, ...]:
        student, teacher = (edges_BA4E.flatten(1, 2) for edges_BA4E in batch.tap("edge_logits"))
        scores_BA = top_scores(batch.tap("class_logits")[1])
        weights_BA = scores_BA * (positives(batch).labels_BA >= 0)
        weights_B1X = weights_BA.repeat_interleave(4, dim=1)[:, None]
        return (candidate_knowledge(student, teacher, LOGITS, Given(weights_B1X)),)


@dataclass(frozen=True, eq=False)
class Positives:
    """Which candidates see an object, by the teacher's boxes: (B, A) class of the object, -1 for none."""

    labels_BA: Tensor


def positives(batch: Batch) -> Positives:
    """Found once a batch."""
    return batch.shared("positives", lambda: _find_positives(batch))


def _find_positives(batch: Batch) -> Positives:
    candidates_BA4, truth = batch.tap("boxes")[1], batch.boxes
    none_BA = torch.full(candidates_BA4.shape[:2], -1, dtype=torch.int64, device=candidates_BA4.device)
    if truth.padded_BM4.shape[1] == 0:
        return Positives(none_BA)
    overlap_BAM = pairwise_iou(candidates_BA4, truth.padded_BM4.nan_to_num(0.0).to(candidates_BA4.dtype))
    best_BA, which_BA = overlap_BAM.masked_fill(~truth.there_BM[:, None], 0.0).max(-1)
    return Positives(torch.where(best_BA >= POSITIVE_IOU, truth.labels_BM.gather(1, which_BA), none_BA))


def top_scores(logits_BAK: Tensor) -> Tensor:
    """(B, A): the probability of each candidate's likeliest class, each class a yes or no of its own."""
    return logits_BAK.amax(-1).sigmoid()


def candidate_knowledge(
    student_BAX: Tensor,
    teacher_BAX: Tensor,
    layout: Layout,
    region: Region | None = None,
    labels_SHW: Tensor | None = None,
) -> Knowledge:
    """The predictions of both sides as a row of cells, (B, X, 1, A)."""
    student_SCHW, teacher_SCHW = (x_BAX.transpose(1, 2)[:, :, None] for x_BAX in (student_BAX, teacher_BAX))
    grid = Grid(1, student_BAX.shape[1])
    return Knowledge(student_SCHW, teacher_SCHW, grid, region, layout, labels_SHW=labels_SHW)


def require_equal_candidates(context: BuildContext, *taps: str) -> None:
    """Raise DistillError, naming both shapes, if student and teacher differ in candidates, classes or bins."""
    for tap in taps:
        student, teacher = (_shape_of(outputs, tap) for outputs in (context.student, context.teacher))
        if student and teacher and student != teacher:
            raise DistillError(
                f"{tap}, {_AXES[tap]}: an image of the student has {student}, one of the teacher {teacher}, so that "
                "they cannot be compared one by one. Use detectors with equal heads on inputs of one size, or a "
                "distiller that looks at feature maps."
            )


def _shape_of(outputs: DetectorOutputs | None, tap: str) -> tuple[int, ...]:
    """The shape of an image's tap; empty where it is absent."""
    value = getattr(outputs, tap, None) if outputs is not None else None
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else ()
