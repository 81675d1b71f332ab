"""Schedules of weights: the factor of a term's weight as a function of the training's progress.

Legend of formulas: p, the part of the training that is over, 0 to 1.
"""

from __future__ import annotations

import math

from autokd.spec import Weight

_WARM_UP = 0.1
"""Part of the training over which ``warm_up`` rises."""
_ROUNDING = 1e-6
"""Progress is a sum over steps, and a spec's numbers have 6 digits: 0.666667 must end a term at 2 / 3 of a training."""


def schedule_factor(weight: Weight, progress: float) -> float:
    """Return the factor of a weight at a time of the training.

    constant: 1. linear_decay: 1 - p. warm_up: p / 0.1, at most 1. cosine_decay: (1 + cos(pi p)) / 2. off_after: 1 while
    p < off_after, then 0 (as MMRazor stops the distillation of RTMDet, arXiv:2212.07784, before the last epochs).

    Args:
        weight: the weight, for its schedule.
        progress: p.

    Returns:
        A number from 0 to 1.
    """
    if weight.schedule == "linear_decay":
        return 1.0 - progress
    if weight.schedule == "warm_up":
        return min(progress / _WARM_UP, 1.0)
    if weight.schedule == "cosine_decay":
        return (1.0 + math.cos(math.pi * progress)) / 2.0
    return 0.0 if is_over(weight, progress) else 1.0


def is_over(weight: Weight, progress: float) -> bool:
    """Return whether a weight is 0 for the rest of the training, so that its term need not be computed.

    Args:
        weight: the weight, for its schedule.
        progress: the part of the training that is over, 0 to 1.
    """
    return weight.schedule == "off_after" and progress >= weight.off_after - _ROUNDING
