"""What weights are that do not fit a detector: a backbone's alone, or those of one of torchvision's builders."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from autokd.config import BUILDERS

_OPTIONAL = ("num_batches_tracked",)
_OF_CLASSES = ("cls_logits", "box_predictor")


def advice_on(weights: Mapping[str, Tensor], architecture: str, body: nn.Module) -> str:
    """Return sentences on what the weights are and which keys take them; empty if they are not recognized.

    Args:
        weights: name -> tensor.
        architecture: the architecture that they do not fit.
        body: the part of that detector below the pyramid.
    """
    if _holds_body(weights, body):
        return (
            "These are the weights of a backbone alone, as a classifier of ImageNet has them: give them as "
            "'backbone: {name: ..., weights: FILE}', and leave 'checkpoint' out."
        )
    builder = _builder_of(weights)
    if builder is not None and builder != architecture:
        return (
            f"These are the weights of torchvision's {builder}, whose norm layers, top levels or head differ from "
            f"those of this {architecture}: set 'architecture: {builder}', and leave backbone, fpn_channels and "
            "head_convs out."
        )
    return ""


def _holds_body(weights: Mapping[str, Tensor], body: nn.Module) -> bool:
    """Return whether most weights of a body are there under a classifier's names."""
    expected = [name for name in body.state_dict() if not name.endswith(_OPTIONAL)]
    return sum(name in weights or f"features.{name}" in weights for name in expected) > len(expected) / 2


def _builder_of(weights: Mapping[str, Tensor]) -> str | None:
    found = _shapes({name: tuple(value.shape) for name, value in weights.items()})
    return next((name for name in BUILDERS if _shapes_of_builder(name) == found), None)


@cache
def _shapes_of_builder(name: str) -> frozenset[tuple[str, tuple[int, ...]]]:
    with torch.device("meta"):
        model = get_model(name, weights=None, weights_backbone=None)
    return _shapes({key: tuple(value.shape) for key, value in model.state_dict().items()})


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> frozenset[tuple[str, tuple[int, ...]]]:
    """Return names and shapes but for layers that depend on the classes."""
    return frozenset(
        (name, shape)
        for name, shape in shapes.items()
        if not name.endswith(_OPTIONAL) and not any(part in name for part in _OF_CLASSES)
    )
