"""Targets that were checked in the host's memory, where a look at their numbers waits for no GPU.

Legend: n boxes of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

Each = TypeVar("Each", bound=Mapping[str, Any])


class CheckedTargets(list[Each]):
    """The targets of a batch, of which the boxes are boxes, and the labels are below ``num_classes``."""

    def __init__(self, targets: Sequence[Each], num_classes: int) -> None:
        super().__init__(targets)
        self.num_classes = num_classes


def part_of(targets: list[Each], rows: slice) -> list[Each]:
    """Return the targets of some of the images, checked if all were."""
    part = targets[rows]
    return CheckedTargets(part, targets.num_classes) if isinstance(targets, CheckedTargets) else part


def wrong_targets(boxes_n4: Tensor, labels_n: Tensor, num_classes: int | None = None) -> Tensor:
    """Return (n,) truth values: which boxes have no area, or labels that are no class.

    Args:
        boxes_n4: xyxy.
        labels_n: from 0.
        num_classes: number of classes; None: any label from 0 is one.
    """
    # ``~(a > b)`` and not ``a <= b``: any comparison with NaN is false, and NaN has to count as wrong.
    wrong_n = ~(boxes_n4[:, 2:] > boxes_n4[:, :2]).all(dim=1) | (labels_n < 0)
    return wrong_n if num_classes is None else wrong_n | (labels_n >= num_classes)


def labels_above(boxes_n4: Tensor, labels_n: Tensor) -> int | None:
    """Return the least number of classes with which the targets are right; None if there is none.

    Args:
        boxes_n4: xyxy, in the host's memory.
        labels_n: from 0, in the host's memory.
    """
    if bool(wrong_targets(boxes_n4, labels_n).any()):
        return None
    return int(labels_n.max()) + 1 if len(labels_n) else 0
