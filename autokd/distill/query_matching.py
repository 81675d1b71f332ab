"""Matching of the student's predictions with the teacher's, one to one.

Legend: B images, A predictions of the student, Q of the teacher, P = min(A, Q) pairs, K classes.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_OF_CLASSES, _OF_SIDES, _OF_OVERLAP = 1.0, 5.0, 2.0
"""Weights of the three costs: DETR's, arXiv:2005.12872, appendix A.2."""
_NO_AREA = 1e-12


@torch.no_grad()
def match_queries(
    student_logits_BAK: Tensor,
    student_boxes_BA4: Tensor,
    teacher_logits_BQK: Tensor,
    teacher_boxes_BQ4: Tensor,
    image_size_px: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Match predictions by the least sum of costs (Hungarian algorithm), image by image.

    The cost of a pair is sum_k |sigmoid z_s - sigmoid z_t| + 5 L1(boxes) + 2 (1 - GIoU), boxes as center and size
    relative to the image.

    Args:
        student_logits_BAK, teacher_logits_BQK: class logits.
        student_boxes_BA4, teacher_boxes_BQ4: xyxy pixels.
        image_size_px: (height, width) of the network's input.

    Returns:
        Indices of the student's and of the teacher's predictions, both (B, P), by rising index of the teacher's.
    """
    costs_BQA = _OF_CLASSES * torch.cdist(teacher_logits_BQK.sigmoid(), student_logits_BAK.sigmoid(), p=1)
    student_BA4, teacher_BQ4 = (_relative(x, image_size_px) for x in (student_boxes_BA4, teacher_boxes_BQ4))
    costs_BQA += _OF_SIDES * torch.cdist(teacher_BQ4, student_BA4, p=1)
    costs_BQA += _OF_OVERLAP * (1 - _giou(teacher_boxes_BQ4, student_boxes_BA4))
    found = [linear_sum_assignment(cost_QA) for cost_QA in costs_BQA.nan_to_num(1e6).cpu().numpy()]
    device = student_logits_BAK.device
    of_teacher, of_student = (torch.as_tensor([list(pair[i]) for pair in found], device=device) for i in (0, 1))
    return of_student, of_teacher


def _relative(boxes_BN4: Tensor, image_size_px: tuple[int, int]) -> Tensor:
    height, width = image_size_px
    low, high = boxes_BN4[..., :2], boxes_BN4[..., 2:]
    scale = boxes_BN4.new_tensor([width, height, width, height])
    return torch.cat([(low + high) / 2, high - low], -1) / scale


def _giou(one_BQ4: Tensor, other_BA4: Tensor) -> Tensor:
    """(B, Q, A): IoU minus the part of the enclosing box that neither box covers."""
    one, other = one_BQ4[:, :, None], other_BA4[:, None]
    areas = [(x[..., 2:] - x[..., :2]).clamp_min(0).prod(-1) for x in (one, other)]
    common = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp_min(0)
    hull = (torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])).clamp_min(0)
    common_BQA, hull_BQA = common.prod(-1), hull.prod(-1)
    union_BQA = areas[0] + areas[1] - common_BQA
    return common_BQA / union_BQA.clamp_min(_NO_AREA) - 1 + union_BQA / hull_BQA.clamp_min(_NO_AREA)
