"""Names that torchvision's earlier versions gave to weights of its detectors; most files of its hub have them."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

from torch import Tensor

_RENAMED = (
    # FeaturePyramidNetwork and RPNHead until version 1, RetinaNet's branches, whose ReLUs were layers of their own.
    (re.compile(r"(.*\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)"), lambda m: f"{m[1]}.0.{m[2]}"),
    (re.compile(r"(.*rpn\.head\.conv)\.(weight|bias)"), lambda m: f"{m[1]}.0.0.{m[2]}"),
    (
        re.compile(r"(.*head\.(?:classification|regression)_head\.conv)\.(\d+)\.(weight|bias)"),
        lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}",
    ),
)


def with_present_names(weights: Mapping[str, Tensor], expected: Container[str]) -> dict[str, Tensor]:
    """Return the weights with today's names for those that a model does not expect.

    Args:
        weights: name -> tensor.
        expected: names of the model.
    """
    return {_present(name, expected): value for name, value in weights.items()}


def _present(name: str, expected: Container[str]) -> str:
    if name in expected:
        return name
    for pattern, renamed in _RENAMED:
        match = pattern.fullmatch(name)
        if match is not None and renamed(match) in expected:
            return renamed(match)
    return name
