"""The objects of a batch in tensors of one shape, and which of them each anchor is to find: no call waits for a GPU.

torchvision matches image by image, with a few calls in each whose results have as many rows as there are positive
anchors: a GPU must tell the host that number, for which the host waits. Here shapes depend on no number of a tensor.

Legend: B images, M objects of the image that has most, A anchors, n objects of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from autokd.detectors.contract import Target

_MOST_PAIRS = 2**24
"""Pairs of an anchor and an object that are compared at once: a few tensors of 64 MiB."""
_LARGE_AREA = 1e8
"""torchvision's: from it areas are subtracted, so that the greatest number is that of the smallest object."""


@dataclass(frozen=True, eq=False)
class PaddedTargets:
    """Boxes and labels of a batch.

    Attributes:
        boxes_BM4: xyxy px; zeros where an image has fewer objects.
        labels_BM: -1 there.
    """

    boxes_BM4: Tensor
    labels_BM: Tensor

    @staticmethod
    def of(targets: Sequence[Target]) -> PaddedTargets:
        """Return the targets of B images; there is room for one object at least."""
        boxes_BM4 = pad_sequence([target["boxes"] for target in targets], batch_first=True)
        labels_BM = pad_sequence([target["labels"] for target in targets], batch_first=True, padding_value=-1)
        if labels_BM.shape[1] == 0:
            boxes_BM4, labels_BM = F.pad(boxes_BM4, (0, 0, 0, 1)), F.pad(labels_BM, (0, 1), value=-1)
        return PaddedTargets(boxes_BM4, labels_BM)

    @property
    def is_object_BM(self) -> Tensor:
        return self.labels_BM >= 0

    def boxes_of(self, matched_BA: Tensor) -> Tensor:
        """Return (B, A, 4): the box that each anchor is matched with; that of object 0 for unmatched ones."""
        rows_BA4 = matched_BA.clamp(min=0)[..., None].expand(-1, -1, 4)
        return self.boxes_BM4.gather(1, rows_BA4)

    def labels_of(self, matched_BA: Tensor) -> Tensor:
        """Return (B, A): the label of the object that each anchor is matched with, at least 0."""
        return self.labels_BM.gather(1, matched_BA.clamp(min=0)).clamp(min=0)

    def in_parts(self, num_anchors: int) -> list[PaddedTargets]:
        """Return the images in parts of which all pairs with ``num_anchors`` anchors fit in memory."""
        size = max(1, _MOST_PAIRS // (num_anchors * self.labels_BM.shape[1]))
        parts = zip(self.boxes_BM4.split(size), self.labels_BM.split(size), strict=True)
        return [PaddedTargets(boxes, labels) for boxes, labels in parts]


def matched_by(match: Callable[[PaddedTargets, Tensor], Tensor], targets: PaddedTargets, anchors_A4: Tensor) -> Tensor:
    """Return (B, A), the results of ``match`` for parts of the batch."""
    with torch.no_grad():
        return torch.cat([match(part, anchors_A4) for part in targets.in_parts(len(anchors_A4))])


def match_by_overlap(
    targets: PaddedTargets, anchors_A4: Tensor, *, high: float, low: float, keeps_best: bool
) -> Tensor:
    """Match anchors with objects as torchvision's ``Matcher`` does.

    Args:
        targets: the objects.
        anchors_A4: xyxy px.
        high: least IoU of a match.
        low: greatest IoU below which an anchor is background.
        keeps_best: whether each object also gets the anchors that overlap it most.

    Returns:
        (B, A): the object of each anchor; -1: background, -2: neither.
    """
    overlap_BMA = _overlaps(targets.boxes_BM4, anchors_A4)
    # Below any IoU, so that no anchor takes an object that is not there.
    overlap_BMA = torch.where(targets.is_object_BM[..., None], overlap_BMA, -1.0)
    best_BA, object_BA = overlap_BMA.max(dim=1)
    matched_BA = torch.where(best_BA < high, -2, object_BA)
    matched_BA = torch.where(best_BA < low, -1, matched_BA)
    if not keeps_best:
        return matched_BA
    is_best_BMA = (overlap_BMA == overlap_BMA.amax(dim=2, keepdim=True)) & targets.is_object_BM[..., None]
    return torch.where(is_best_BMA.any(dim=1), object_BA, matched_BA)


def _overlaps(boxes_BM4: Tensor, anchors_A4: Tensor) -> Tensor:
    """Return (B, M, A) IoU, by the operations of torchvision's ``box_iou``."""
    low_BMA2 = torch.maximum(boxes_BM4[:, :, None, :2], anchors_A4[:, :2])
    high_BMA2 = torch.minimum(boxes_BM4[:, :, None, 2:], anchors_A4[:, 2:])
    shared_BMA = (high_BMA2 - low_BMA2).clamp(min=0).prod(dim=3)
    return shared_BMA / (_areas(boxes_BM4)[:, :, None] + _areas(anchors_A4) - shared_BMA)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def match_by_centers(
    targets: PaddedTargets, anchors_A4: Tensor, *, radius: float, num_by_level: Sequence[int]
) -> Tensor:
    """Match cells with objects as torchvision's FCOS does: center sampling, and a range of sizes for each level.

    Args:
        targets: the objects.
        anchors_A4: a square of the level's stride around each cell, xyxy px.
        radius: greatest distance of a cell from an object's center in strides.
        num_by_level: cells of each level, fine to coarse.

    Returns:
        (B, A): the object of each cell, the smallest of several; -1: none.
    """
    boxes_B1M4 = targets.boxes_BM4[:, None]
    centers_A12 = ((anchors_A4[:, :2] + anchors_A4[:, 2:]) / 2)[:, None]
    stride_A1 = (anchors_A4[:, 2] - anchors_A4[:, 0])[:, None]
    object_centers = (boxes_B1M4[..., :2] + boxes_B1M4[..., 2:]) / 2
    matches_BAM = (centers_A12 - object_centers).abs().amax(dim=3) < radius * stride_A1
    sides_BAM4 = torch.cat([centers_A12 - boxes_B1M4[..., :2], boxes_B1M4[..., 2:] - centers_A12], dim=3)
    matches_BAM &= sides_BAM4.amin(dim=3) > 0
    least_A1, most_A1 = stride_A1 * 4, stride_A1 * 8
    least_A1[: num_by_level[0]] = 0
    most_A1[-num_by_level[-1] :] = float("inf")
    farthest_BAM = sides_BAM4.amax(dim=3)
    matches_BAM &= (farthest_BAM > least_A1) & (farthest_BAM < most_A1) & targets.is_object_BM[:, None]
    smallest_BA, object_BA = (matches_BAM * (_LARGE_AREA - _areas(targets.boxes_BM4))[:, None]).max(dim=2)
    return torch.where(smallest_BA < 1e-5, -1, object_BA)
