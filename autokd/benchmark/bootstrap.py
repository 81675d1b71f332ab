"""Intervals by bootstrap, for statistics whose distribution has no formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

NUM_RESAMPLES = 2000


def interval_95(values: Sequence[float], statistic: Callable[..., Any]) -> tuple[float, float]:
    """Return the 95% interval of a statistic by bootstrap over the values.

    Args:
        values: one number a repeat.
        statistic: ``np.mean``, ``np.median``, or another function with an ``axis``.

    Returns:
        Lower and upper end; equal values give equal ends, since the resampling has a fixed seed.
    """
    rng = np.random.default_rng(0)
    drawn = statistic(rng.choice(np.asarray(values, dtype=float), (NUM_RESAMPLES, len(values))), axis=1)
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))
