"""Weights that are measured during training and never trained: when they are measured, and how they follow.

Three weights are measured: a relative weight of a term (``balance``), the factors of a term's levels
(``level_factors``) and the weights of several teachers (``teachers``). Each is measured at the steps that ``is_due``
names and follows its measurements as a moving mean.

Legend: P parts that share a weight (levels of a term, or teachers).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autokd.distill.weighting.rounding import MapSizes, gradients_of, is_rounding, joint_norm, measure_gradient

FIRST_STEPS = 3
"""Steps at the beginning of a training in each of which weights are measured: one batch alone is a noisy guess."""
RATE = 0.5
"""Part of the newest measurement in a moving mean."""
LEAST_GAP = 0.01
"""Least representation gap 1 - CKA: a level or a teacher that the student agrees with entirely keeps a small weight."""
HALF_PRECISION_SCALE = 1024.0
"""Multiplies a loss before its gradient on float16 taps is taken, which could fall below that format's smallest
number; 2^10, so that the norm is divided by it again without rounding."""


class MeasuredFactors(nn.Module, ABC):
    """Positive factors of P parts that follow measurements in proportion.

    The factors are buffers: checkpoints hold them, and no gradient reaches them.
    """

    factors_P: Tensor
    was_measured: Tensor

    def __init__(self, initial: Sequence[float], least: float = 0.0) -> None:
        """Begin with given factors.

        Args:
            initial: the P factors before the first measurement.
            least: a measured value below this counts as this.
        """
        super().__init__()
        self._least = least
        self.register_buffer("factors_P", torch.tensor(initial))
        self.register_buffer("was_measured", torch.zeros(()))

    @torch.no_grad()
    def follow(self, measured: Sequence[Tensor | float]) -> None:
        """Move the factors towards ``measured``, in proportion.

        Args:
            measured: P values. One that is 0 or not finite could not be measured and counts as the mean of the others;
                if none could be, the factors stay.
        """
        found = [torch.as_tensor(value, dtype=torch.float32).to(self.factors_P) for value in measured]
        measured_P = torch.stack(found).clamp_min(self._least)
        is_valid_P = measured_P.isfinite() & (measured_P > 0)
        if not bool(is_valid_P.any()):
            return
        # The first measurement replaces the initial factors: those are no measurement to average with.
        rate = torch.where(self.was_measured > 0, RATE, 1.0)
        self.factors_P.lerp_(self.normalized(measured_P, is_valid_P), rate)
        self.was_measured.fill_(1.0)

    @abstractmethod
    def normalized(self, measured_P: Tensor, is_valid_P: Tensor) -> Tensor:
        """Return the factors that ``measured_P`` asks for, with the sum or mean that this kind of factors has."""


def is_due(step: int, every: int | None) -> bool:
    """Return whether weights are measured at a step.

    Args:
        step: counted from 0.
        every: steps between two measurements after the first ones; None for no further measurement.

    Returns:
        True in the first ``FIRST_STEPS`` steps and in every step that ``every`` divides.
    """
    return step < FIRST_STEPS or (every is not None and step % every == 0)


def gradient_norm(value: Tensor, taps: Sequence[Tensor]) -> Tensor | None:
    """Return the norm of d value / d taps, all taps as one vector.

    Args:
        value: a scalar; its graph is kept for the training's own backward.
        taps: tensors that require a gradient.

    Returns:
        A float32 scalar; None if ``value`` does not depend on any of ``taps``.
    """
    found = gradients_of(value, taps)
    return joint_norm(found) if any(gradient is not None for gradient in found) else None


def inverse_gradient_norms(values: Sequence[Tensor], taps: Sequence[Tensor]) -> list[Tensor | float]:
    """Return 1 / ||d value / d taps|| of each value, so that parts weighted by it have equal gradient norms.

    Args:
        values: scalars, whose graphs are kept.
        taps: the student's taps; with none, nothing can be measured.

    Returns:
        A scalar each; 0 for a value that does not depend on ``taps``, or whose gradient is rounding alone.
    """
    if not taps:
        return [0.0] * len(values)
    scale, sizes = scale_for(taps), MapSizes.of(taps)
    found = [measure_gradient(value * scale, taps, sizes) for value in values]
    return [torch.where(is_rounding(each.value, each.change, sizes.rounding), 0.0, scale / each.norm) for each in found]


def scale_for(taps: Sequence[Tensor]) -> float:
    """Return the factor for a loss whose gradient on ``taps`` is taken: above 1 if one of them is float16."""
    return HALF_PRECISION_SCALE if any(tap.dtype == torch.float16 for tap in taps) else 1.0


__all__ = [
    "LEAST_GAP",
    "MeasuredFactors",
    "gradient_norm",
    "inverse_gradient_norms",
    "is_due",
    "scale_for",
]
