"""Signs that a value or its gradient is only rounding, and so no measurement.

A term can have nothing to differ in: one object whose own vector is the prototype, two objects whose one distance is
divided by itself, a correlation over two classes, which is always 1 or -1. Its gradient is then not 0 but rounding, and
a factor that raises it to the size of the task's makes noise the loss. With v a term's value, eps the rounding of the
format in which terms are computed, and L the change of v to first order if every student's map changed by its own size,

    L = sum over taps of (rms of the tap + rms of the teacher's maps) * sum |dv / dtap|,

a gradient is refused if one of these holds:

    equal sides       ||s - t|| < 100 eps (||s|| + ||t||) in every feature pair that reaches the distance, of a term
                      that is 0 at equality. A cosine of an object to itself is 1 up to its last digit on both sides;
                      value and gradient are then both of the size eps^2, and their ratio says nothing
    no value          v < 100 eps L: near a minimum v falls with the square of the difference and L with the difference;
                      or v < (100 eps)^2 of a distance that does not depend on the scale of what it compares
    constant value    L < 100 eps v: v is not 0, and only rounding moves it

Honest terms have L / v from about 0.01 to 1e4. No sign depends on the scale of values or maps, so a term whose value is
small is measured as any other. The teacher's maps count in L so that a student whose maps are all 0 is measured too.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autokd.distill.feature_pair import FeaturePair

_MARGIN = 100.0
"""Roundings that may add up in a value: sums over cells and vectors multiply that of one operation."""


def rounding_of(maps: Sequence[Tensor]) -> float:
    """Return eps of the format in which terms on ``maps`` are computed: float32, or float64 if all maps are."""
    is_double = all(x.dtype is torch.float64 for x in maps)
    return torch.finfo(torch.float64 if is_double else torch.float32).eps


@dataclass(frozen=True, slots=True)
class MapSizes:
    """The sizes by which gradients on taps are judged, float32 scalars.

    Attributes:
        per_tap: root mean square of each of the student's taps plus that of the teacher's maps.
        rounding: eps of the format in which terms are computed.
    """

    per_tap: tuple[Tensor, ...]
    rounding: float

    @classmethod
    def of(cls, taps: Sequence[Tensor], teacher_maps: Sequence[Tensor] = ()) -> MapSizes:
        """Measure maps.

        Args:
            taps: the student's maps; those of a half-precision format are computed with in float32.
            teacher_maps: the teacher's; empty if it has none.
        """
        teacher = torch.stack([_rms(x).to(taps[0].device) for x in teacher_maps]).mean() if teacher_maps else 0.0
        return cls(tuple(_rms(tap) + teacher for tap in taps), rounding_of(taps))


@dataclass(frozen=True, slots=True)
class MeasuredGradient:
    """The gradient of one value on the student's taps, as float32 scalars.

    Attributes:
        norm: norm over all taps as one vector; 0 if the value does not depend on them.
        change: L of this module's head.
        value: the value, without its graph.
    """

    norm: Tensor
    change: Tensor
    value: Tensor


def measure_gradient(value: Tensor, taps: Sequence[Tensor], sizes: MapSizes) -> MeasuredGradient:
    """Return the gradient of ``value`` on ``taps``; its graph is kept for the training's own backward."""
    plain = value.detach().float()
    found = gradients_of(value, taps)
    if not any(gradient is not None for gradient in found):
        return MeasuredGradient(torch.zeros_like(plain), torch.zeros_like(plain), plain)
    changes = [
        size * torch.linalg.vector_norm(gradient, 1, dtype=torch.float32)
        for gradient, size in zip(found, sizes.per_tap, strict=True)
        if gradient is not None
    ]
    return MeasuredGradient(joint_norm(found), torch.stack(changes).sum(), plain)


def is_rounding(value: Tensor, change: Tensor, rounding: float) -> Tensor:
    """Return where a value, or its gradient, is rounding alone; elementwise, on the device.

    Args:
        value: values, of any sign.
        change: L of each.
        rounding: eps of the format in which they were computed.
    """
    tolerance = _MARGIN * rounding
    size = value.abs()
    # "Not at least": a NaN is refused as well.
    return ~((size >= tolerance * change) & (change >= tolerance * size) & (change > 0))


@torch.no_grad()
def sides_differ(pairs: Sequence[FeaturePair], rounding: float) -> Tensor:
    """Return whether student and teacher differ by more than rounding in any pair: a bool scalar, on the device.

    Args:
        pairs: the feature pairs that reach a distance.
        rounding: eps of the format in which they were computed.
    """
    found = []
    for pair in pairs:
        student_SCHW, teacher_SCHW = pair.student_SCHW, pair.teacher_SCHW
        if (weights_SHW := pair.weights_SHW) is not None:
            # Cells that do not count hold anything, great numbers too, beside which a difference would seem small.
            counts_S1HW = (weights_SHW > 0)[:, None]
            student_SCHW, teacher_SCHW = student_SCHW * counts_S1HW, teacher_SCHW * counts_S1HW
        size = torch.linalg.vector_norm(student_SCHW) + torch.linalg.vector_norm(teacher_SCHW)
        found.append(torch.linalg.vector_norm(student_SCHW - teacher_SCHW) > _MARGIN * rounding * size)
    return torch.stack(found).any()


def least_value(rounding: float) -> float:
    """Return the greatest value that is rounding, of a distance whose value does not depend on scale."""
    return (_MARGIN * rounding) ** 2


def gradients_of(value: Tensor, taps: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Return d value / d tap of each tap, None where it does not depend on one; the graph is kept."""
    if not value.requires_grad:
        return (None,) * len(taps)
    # Outside autocast, which would take a backward's products in half precision.
    with torch.autocast(value.device.type, enabled=False):
        return torch.autograd.grad(value, list(taps), retain_graph=True, allow_unused=True)


def joint_norm(gradients: Sequence[Tensor | None]) -> Tensor:
    """Return the norm of all gradients as one vector, a float32 scalar; one at least is not None."""
    # In float32 whatever the tap's type: a sum of squares of float16 overflows at a norm of 256.
    norms = [torch.linalg.vector_norm(each, dtype=torch.float32) for each in gradients if each is not None]
    return torch.linalg.vector_norm(torch.stack(norms))


def _rms(x: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(x.detach(), dtype=torch.float32)
    return size / max(x.numel(), 1) ** 0.5


__all__ = [
    "MapSizes",
    "MeasuredGradient",
    "gradients_of",
    "is_rounding",
    "joint_norm",
    "least_value",
    "measure_gradient",
    "rounding_of",
    "sides_differ",
]
