"""Candidate boxes: the predictions of both detectors one by one, and the candidates that are positive.

Student and teacher must have the same candidates in the same order (heads of one layout, inputs of one size).

Legend: B images, A candidate boxes of an image, P positive ones, K classes, X numbers of a candidate, M the most
ground-truth boxes of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from autokd.detector_outputs import DetectorOutputs
from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.regions import Boxes, Region
from autokd.distill.operators import BuildContext
from autokd.distill.region_sets import pairwise_iou
from autokd.distill.term_inputs import TermInputs
from autokd.errors import DistillError
from autokd.spec.operator import Layout

_LEAST_SCORE = 1e-30
POSITIVE_IOU = 0.5
"""A candidate is positive from this overlap of the teacher's box with a ground-truth box on."""
_AXES = {
    "class_logits": "(candidates, classes)",
    "boxes": "(candidates, 4)",
    "edge_logits": "(candidates, 4, bins)",
}


@dataclass(frozen=True, eq=False)
class Positives:
    """The positive candidates by the teacher's boxes: P of each image, in order, shorter rows padded."""

    index_BP: Tensor
    """Index of each among the image's candidates."""
    labels_BP: Tensor
    """The object's class, -1 for padding."""
    boxes_BP: Tensor
    """Index of the object among the image's ground-truth boxes."""

    @property
    def present_BP(self) -> Tensor:
        """Which entries are candidates and no padding."""
        return self.labels_BP >= 0

    def of(self, x_BA: Tensor) -> Tensor:
        """Return the positives' rows, (B, P, ...), of a tensor (B, A, ...)."""
        images_B1 = torch.arange(len(x_BA), device=x_BA.device)[:, None]
        return x_BA[images_B1, self.index_BP]


def positives(inputs: TermInputs) -> Positives:
    """Return the positive candidates, found once in a step. They are few, so terms on them alone cost little."""
    return inputs.shared("positives", lambda: _find_positives(inputs))


def _find_positives(inputs: TermInputs) -> Positives:
    candidates_BA4, truth = inputs.tap("boxes")[1], inputs.boxes
    if truth.padded_BM4.shape[1] == 0:
        nothing_B1 = candidates_BA4.new_zeros((len(candidates_BA4), 1), dtype=torch.int64)
        return Positives(nothing_B1, nothing_B1 - 1, nothing_B1)
    best_BA, which_BA = best_overlaps(candidates_BA4, truth)
    is_positive_BA = best_BA >= POSITIVE_IOU
    # This waits for the device: P is the size of the tensors below.
    most = max(int(is_positive_BA.sum(1).max()), 1)
    # A stable sort brings the positives of each image to the front in their own order, without a loop over images.
    index_BP = is_positive_BA.byte().sort(dim=1, descending=True, stable=True).indices[:, :most]
    boxes_BP = which_BA.gather(1, index_BP)
    labels_BP = torch.where(is_positive_BA.gather(1, index_BP), truth.labels_BM.gather(1, boxes_BP), -1)
    return Positives(index_BP, labels_BP, boxes_BP)


def best_overlaps(boxes_BA4: Tensor, truth: Boxes) -> tuple[Tensor, Tensor]:
    """Return the greatest IoU of each box with its image's ground truth, and the index of that object, (B, A) both.

    Args:
        boxes_BA4: xyxy pixels.
        truth: the ground truth; an IoU is 0, of object 0, in images without any.
    """
    if truth.padded_BM4.shape[1] == 0:
        nothing_BA = boxes_BA4.new_zeros(boxes_BA4.shape[:2])
        return nothing_BA, nothing_BA.long()
    overlap_BAM = pairwise_iou(boxes_BA4, truth.padded_BM4.nan_to_num(0.0).to(boxes_BA4.dtype))
    best_BA, which_BA = overlap_BAM.masked_fill(~truth.present_BM[:, None], 0.0).max(-1)
    return best_BA, which_BA


def num_anchors_of(outputs: DetectorOutputs) -> int:
    """Return the candidates of a cell of a dense head.

    Raises:
        DistillError: if the candidates do not lie on the cells of the pyramid, each level alike.
    """
    num_cells = sum(map_BCHW.shape[2] * map_BCHW.shape[3] for map_BCHW in outputs.pyramid.values())
    num_candidates = 0 if outputs.class_logits is None else outputs.class_logits.shape[1]
    return _num_anchors(num_candidates, num_cells)


def _num_anchors(num_candidates: int, num_cells: int) -> int:
    if num_candidates == 0 or num_candidates % num_cells:
        raise DistillError(
            f"the teacher has {num_candidates} candidates and {num_cells} cells on all levels, so that candidates do "
            "not lie on cells (queries have no place of their own). Use a teacher with a dense head over the levels of "
            "its pyramid, or a source that does not weigh cells by predictions."
        )
    return num_candidates // num_cells


def cell_scores(logits_BAK: Tensor, sizes: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """Return the sigmoid of the greatest class logit of each cell's anchors.

    Args:
        logits_BAK: class logits of a dense head: levels fine to coarse, rows, columns, the anchors of a cell.
        sizes: rows and columns of each level, in that order.

    Returns:
        Level name -> (B, H, W).

    Raises:
        DistillError: if the candidates do not lie on the cells.
    """
    num_anchors = _num_anchors(logits_BAK.shape[1], sum(height * width for height, width in sizes.values()))
    # A sigmoid that float32 rounds to 0 stays above it: steps take statistics over the cells of positive weight.
    scores_BN = top_scores(logits_BAK.unflatten(1, (-1, num_anchors)).flatten(2)).clamp_min(_LEAST_SCORE)
    parts = scores_BN.split([height * width for height, width in sizes.values()], dim=1)
    return {name: part_BN.unflatten(1, size) for (name, size), part_BN in zip(sizes.items(), parts)}


def candidate_levels(inputs: TermInputs) -> Tensor:
    """Return the index of the pyramid's level of each candidate, (A,).

    Dense heads list their candidates level by level, equally many a cell. Candidates whose number is no multiple of the
    number of cells (SSD's, queries) have no such order: they all have the level 0.
    """
    sizes = tuple((map_BCHW.shape[2], map_BCHW.shape[3]) for map_BCHW in inputs.student.pyramid.values())
    return _candidate_levels(sizes, inputs.tap("boxes")[1].shape[1], inputs.device)


@lru_cache(maxsize=256)
def _candidate_levels(sizes: tuple[tuple[int, int], ...], num_candidates: int, device: torch.device) -> Tensor:
    cells_L = torch.tensor([height * width for height, width in sizes], dtype=torch.int64, device=device)
    a_cell, rest = divmod(num_candidates, sum(height * width for height, width in sizes))
    if rest or not a_cell:
        return torch.zeros(num_candidates, dtype=torch.int64, device=device)
    levels_L = torch.arange(len(sizes), device=device)
    return levels_L.repeat_interleave(cells_L * a_cell, output_size=num_candidates)


def top_scores(logits_BAK: Tensor) -> Tensor:
    """Return the sigmoid of each candidate's greatest class logit, (B, A)."""
    return logits_BAK.amax(-1).sigmoid()


def candidate_pair(
    student_BAX: Tensor,
    teacher_BAX: Tensor,
    layout: Layout,
    region: Region | None = None,
    labels_SHW: Tensor | None = None,
) -> FeaturePair:
    """Return the predictions of both sides as a feature pair of one row of cells, (B, X, 1, A)."""
    student_SCHW, teacher_SCHW = (x_BAX.transpose(1, 2)[:, :, None] for x_BAX in (student_BAX, teacher_BAX))
    grid = Grid(1, student_BAX.shape[1])
    return FeaturePair(student_SCHW, teacher_SCHW, grid, region, layout, labels_SHW=labels_SHW)


def require_equal_candidates(context: BuildContext, *taps: str) -> None:
    """Check that both detectors have the same candidates, classes and bins in ``taps``.

    Raises:
        DistillError: naming both shapes, if they differ.
    """
    for tap in taps:
        student, teacher = (_shape_of(outputs, tap) for outputs in (context.student, context.teacher))
        if student and teacher and student != teacher:
            raise DistillError(
                f"{tap}, {_AXES[tap]}: an image of the student has {student}, one of the teacher {teacher}, so that "
                "they cannot be compared one by one. Use detectors with equal heads on inputs of one size, or a "
                "distiller that reads feature maps."
            )


def _shape_of(outputs: DetectorOutputs | None, tap: str) -> tuple[int, ...]:
    """The shape of an image's tap; empty if it is absent."""
    value = getattr(outputs, tap, None) if outputs is not None else None
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else ()
