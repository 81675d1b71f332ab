"""Normalization of a backbone: batch norms as they are, frozen, or replaced by group norms."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from autokd.config import TorchvisionDetector

Norm = Literal["batch", "frozen", "group"]
_V2 = ("retinanet_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2")
"""Builders whose batch norms torchvision trains although the backbone is pretrained."""


def is_pretrained(section: TorchvisionDetector) -> bool:
    """Return whether the backbone starts from weights of torchvision's kind, with which its defaults change.

    A checkpoint of a detector that AutoKD puts together does not count: it was trained as its section says.

    Args:
        section: the configuration.
    """
    return section.backbone.weights is not None or (section.is_builders and section.has_weights)


def norm_of(section: TorchvisionDetector) -> Norm:
    """Return the normalization of a section's backbone; see ``Backbone.norm``."""
    if section.backbone.norm is not None:
        return section.backbone.norm
    can_freeze = section.backbone.has_batch_norms and section.architecture not in _V2
    return "frozen" if is_pretrained(section) and can_freeze else "batch"


def num_trainable_stages(section: TorchvisionDetector) -> int:
    """Return how many parts of a section's backbone are trained; see ``Backbone.trainable_stages``."""
    if section.backbone.trainable_stages is not None:
        return section.backbone.trainable_stages
    return 3 if is_pretrained(section) else 5


def num_groups(channels: int) -> int:
    """Groups of a normalization: about eight channels each.

    Groups need no batch, so heads train at batch 1; torchvision's fixed 32 groups would leave a pair of channels
    in each on narrow pyramids. At 256 channels both agree.
    """
    return max(groups for groups in range(1, max(1, channels // 8) + 1) if channels % groups == 0)


def replace_batch_norms(body: nn.Module, norm: Norm) -> None:
    """Replace the batch norms of a body in place, each by one of its width with the same epsilon."""
    if norm == "batch":
        return
    for parent in list(body.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                channels = child.num_features
                new = FrozenBatchNorm2d(channels, child.eps) if norm == "frozen" else _group_norm(channels)
                setattr(parent, name, new)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups(channels), channels)
