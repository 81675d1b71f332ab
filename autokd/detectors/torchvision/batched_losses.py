"""The losses of torchvision's FCOS and RetinaNet for a whole batch, without a call for which the host waits.

Equal to torchvision's in value and gradient up to the order of sums: what it leaves out by an index is counted as 0
here. On a CPU, where nobody waits, torchvision's own are taken (``dense.py``).

Legend: B images, A anchors, K classes, M objects of the image that has most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import encode_boxes
from torchvision.ops import sigmoid_focal_loss

from autokd.detectors.contract import Target
from autokd.detectors.torchvision.padded_targets import (
    PaddedTargets,
    match_by_centers,
    match_by_overlap,
    matched_by,
)

_EPSILON = 1e-7
"""torchvision's guard in the quotients of generalized IoU."""


def retinanet_losses(
    model: Any, targets: Sequence[Target], raw: Mapping[str, Tensor], anchors_A4: Tensor
) -> dict[str, Tensor]:
    """Return the losses of ``RetinaNet.compute_loss``: means over images of sums divided by the image's positives.

    Args:
        model: torchvision's RetinaNet, whose box loss is "l1", "smooth_l1" or "giou".
        targets: boxes and labels of each image.
        raw: outputs of the head, ``cls_logits`` (B, A, K) and ``bbox_regression`` (B, A, 4).
        anchors_A4: xyxy px.
    """
    padded, matcher = PaddedTargets.of(targets), model.proposal_matcher
    match = partial(
        match_by_overlap,
        high=matcher.high_threshold,
        low=matcher.low_threshold,
        keeps_best=matcher.allow_low_quality_matches,
    )
    matched_BA = matched_by(match, padded, anchors_A4)
    is_positive_BA = matched_BA >= 0
    num_B = is_positive_BA.sum(dim=1).clamp(min=1)
    focal_BA = _focal(raw["cls_logits"], padded.labels_of(matched_BA), is_positive_BA)
    counts_BA = matched_BA != model.head.classification_head.BETWEEN_THRESHOLDS
    head = model.head.regression_head
    boxes_BA4 = torch.where(is_positive_BA[..., None], padded.boxes_of(matched_BA), anchors_A4)
    distance_BA = _box_loss(head, raw["bbox_regression"], boxes_BA4, anchors_A4)
    return {
        "classification": (torch.where(counts_BA, focal_BA, 0.0).sum(dim=1) / num_B).mean(),
        "bbox_regression": (torch.where(is_positive_BA, distance_BA, 0.0).sum(dim=1) / num_B).mean(),
    }


def can_batch(model: Any) -> bool:
    """Whether ``retinanet_losses`` knows the model's box loss."""
    return model.head.regression_head._loss_type in ("l1", "smooth_l1", "giou")


def fcos_losses(
    model: Any, targets: Sequence[Target], raw: Mapping[str, Tensor], anchors_A4: Tensor, num_by_level: Sequence[int]
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the losses of ``FCOS.compute_loss``, sums divided by the batch's positives, and their number.

    Args:
        model: torchvision's FCOS.
        targets: boxes and labels of each image.
        raw: outputs of the head, ``cls_logits`` (B, A, K), ``bbox_regression`` (B, A, 4), ``bbox_ctrness`` (B, A, 1).
        anchors_A4: xyxy px.
        num_by_level: anchors of each level, fine to coarse.
    """
    padded = PaddedTargets.of(targets)
    match = partial(match_by_centers, radius=model.center_sampling_radius, num_by_level=num_by_level)
    matched_BA = matched_by(match, padded, anchors_A4)
    is_positive_BA = matched_BA >= 0
    num_positive = is_positive_BA.sum()
    boxes_BA4 = torch.where(is_positive_BA[..., None], padded.boxes_of(matched_BA), anchors_A4)
    coder = model.head.box_coder
    anchors_BA4 = anchors_A4.expand_as(boxes_BA4)
    overlap_BA = generalized_iou_loss(coder.decode(raw["bbox_regression"], anchors_BA4), boxes_BA4)
    centered_BA = _centerness(coder.encode(anchors_BA4, boxes_BA4))
    center_BA = F.binary_cross_entropy_with_logits(raw["bbox_ctrness"].squeeze(2), centered_BA, reduction="none")
    focal_BA = _focal(raw["cls_logits"], padded.labels_of(matched_BA), is_positive_BA)
    divisor = num_positive.clamp(min=1)
    losses = {
        "classification": focal_BA.sum() / divisor,
        "bbox_regression": torch.where(is_positive_BA, overlap_BA, 0.0).sum() / divisor,
        "bbox_ctrness": torch.where(is_positive_BA, center_BA, 0.0).sum() / divisor,
    }
    return losses, num_positive


def _focal(logits_BAK: Tensor, labels_BA: Tensor, is_positive_BA: Tensor) -> Tensor:
    """Return (B, A): the focal loss of each anchor, summed over classes; one that is not positive has no class."""
    wanted_BA1 = is_positive_BA[..., None].to(logits_BAK.dtype)
    wanted_BAK = torch.zeros_like(logits_BAK).scatter_(2, labels_BA[..., None], wanted_BA1)
    return sigmoid_focal_loss(logits_BAK, wanted_BAK).sum(dim=2)


def _box_loss(head: Any, deltas_BA4: Tensor, boxes_BA4: Tensor, anchors_A4: Tensor) -> Tensor:
    """Return (B, A): torchvision's ``_box_loss`` of each anchor, by the name that the head holds."""
    anchors_N4 = anchors_A4.expand_as(boxes_BA4).reshape(-1, 4)
    if head._loss_type == "giou":
        decoded_N4 = head.box_coder.decode_single(deltas_BA4.reshape(-1, 4), anchors_N4)
        return generalized_iou_loss(decoded_N4.view_as(boxes_BA4), boxes_BA4)
    # Filled on the device: a tensor made of Python's numbers would be copied to it.
    weights = torch.stack([anchors_A4.new_full((), weight) for weight in head.box_coder.weights])
    wanted_BA4 = encode_boxes(boxes_BA4.reshape(-1, 4), anchors_N4, weights).view_as(boxes_BA4)
    distance = F.l1_loss if head._loss_type == "l1" else F.smooth_l1_loss
    return distance(deltas_BA4, wanted_BA4, reduction="none").sum(dim=2)


def generalized_iou_loss(boxes: Tensor, others: Tensor) -> Tensor:
    """Return 1 - generalized IoU (arXiv:1902.09630) of boxes (..., 4), xyxy, one by one.

    torchvision's writes intersections through a mask, whose size a host has to know.
    """
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    sides = high - low
    # Not a product of clamped sides: where a box lies outside, torchvision has no gradient at all.
    shared = torch.where((sides > 0).all(dim=-1), sides[..., 0] * sides[..., 1], 0.0)
    areas = [(b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1]) for b in (boxes, others)]
    union = areas[0] + areas[1] - shared
    around = torch.maximum(boxes[..., 2:], others[..., 2:]) - torch.minimum(boxes[..., :2], others[..., :2])
    enclosing = around[..., 0] * around[..., 1]
    return 1 - shared / (union + _EPSILON) + (enclosing - union) / (enclosing + _EPSILON)


def _centerness(sides: Tensor) -> Tensor:
    """Return the centerness of cells by their distances to left, top, right and bottom, (..., 4)."""
    low, high = sides[..., :2], sides[..., 2:]
    quotient = torch.minimum(low, high) / torch.maximum(low, high)
    return quotient.prod(dim=-1).sqrt()
