"""NaN and infinity, found with one transfer from the device a step, and named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from autokd.distill.batch import Batch
from autokd.errors import NonFiniteError


def summary(batch: Batch, raw: Tensor) -> Tensor:
    """Numbers that are all finite if every tap of the pyramids and every term is: sums, still on the device."""
    with torch.no_grad():
        maps = (*batch.student_maps.values(), *batch.teacher_maps.values())
        return torch.stack([map_BCHW.sum().float() for map_BCHW in maps] + list(raw.float().unbind()))


def raise_if_not_finite(numbers: Sequence[float], batch: Batch, terms: Mapping[str, Tensor]) -> None:
    """Raise NonFiniteError, naming the tap or else the term, if ``numbers`` (a summary) are not all finite."""
    if all(math.isfinite(number) for number in numbers):
        return
    for side, maps in (("student", batch.student_maps), ("teacher", batch.teacher_maps)):
        for level, map_BCHW in maps.items():
            found = _found(map_BCHW)
            if found:
                raise NonFiniteError(
                    f"{side} fpn {level} holds {found} among {map_BCHW.numel()} values. "
                    "The detector has diverged, or its input or checkpoint is broken."
                )
    for name, value in terms.items():
        if not torch.isfinite(value):
            raise NonFiniteError(
                f"term {name} is {value.item()}, though every tap is finite: the taps are too large for it "
                f"(greatest magnitude {_greatest(batch):.3g}). Lower the learning rate, or use another distance."
            )


def _found(map_BCHW: Tensor) -> str:
    num_nan, num_infinite = int(map_BCHW.isnan().sum()), int(map_BCHW.isinf().sum())
    parts = [f"{number} {what}" for number, what in ((num_nan, "NaN"), (num_infinite, "infinite")) if number]
    return " and ".join(parts)


def _greatest(batch: Batch) -> float:
    maps = (*batch.student_maps.values(), *batch.teacher_maps.values())
    return max(float(map_BCHW.detach().abs().max()) for map_BCHW in maps if map_BCHW.numel())
