"""Non-maximum suppression: of one class, or of classes moved apart as ``mmcv.ops.batched_nms`` does, and soft.

Shapes: N boxes. Boxes are xyxy in pixels; ``offset`` 1 counts a box's width as x2 - x1 + 1.
"""

from __future__ import annotations

import torch
import torchvision.ops

from autokd.mmcv_ops.precision import computed

NAIVE, LINEAR, GAUSSIAN = 0, 1, 2
"""Rules by which soft suppression lowers the score of a box that overlaps a better one."""


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
    """Return the indices of the boxes that stay, best first: torchvision's ``nms``.

    boxes (N, 4), scores (N,) -> (n,) int64.
    """
    return torchvision.ops.nms(computed(_widened(boxes, offset)), computed(scores), iou_threshold)


def softnms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    dets: torch.Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> torch.Tensor:
    """Keep boxes, but lower their scores by their overlap with better ones (Soft-NMS, arXiv:1704.04503, eq. 3 and 5).

    boxes (N, 4), scores (N,); ``dets`` (N, 5) receives the kept boxes with their lowered scores, best first.
    Returns their indices, (n,) int64. A box leaves as soon as its score falls below ``min_score``; the very best one
    stays whatever its score, as in mmcv.
    """
    wide = computed(_widened(boxes, offset))
    left = torch.arange(len(boxes), device=boxes.device)
    lowered = computed(scores).clone()
    kept: list[torch.Tensor] = []
    while len(left):
        place = int(lowered[left].argmax())
        best = left[place]
        kept.append(best)
        left = torch.cat((left[:place], left[place + 1 :]))
        # Two empty boxes have no union, hence no overlap.
        iou = torchvision.ops.box_iou(wide[best][None], wide[left])[0].nan_to_num(0.0)
        lowered[left] *= _factor(iou, method, iou_threshold, sigma)
        left = left[lowered[left] >= min_score]
    indices = torch.stack(kept) if kept else left
    dets[: len(indices)] = torch.cat((boxes[indices], lowered[indices, None].to(boxes.dtype)), dim=1)
    return indices


def _factor(iou: torch.Tensor, method: int, iou_threshold: float, sigma: float) -> torch.Tensor:
    if method == GAUSSIAN:
        return torch.exp(-(iou**2) / sigma)
    lower = 1 - iou if method == LINEAR else torch.zeros_like(iou)
    return torch.where(iou >= iou_threshold, lower, torch.ones_like(iou))


def _widened(boxes: torch.Tensor, offset: int) -> torch.Tensor:
    """Move right and bottom edges by ``offset``: intersections and areas then hold the offset by themselves."""
    return boxes + boxes.new_tensor([0, 0, offset, offset]) if offset else boxes
