"""Means, spreads and gains with their intervals.

Spread is the sample standard deviation over training seeds. A gain's interval is Student's t over the differences
of equal seeds (which share initial weights and order of images), or Welch's where no two seeds are shared.
Neither covers the choice of test images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autokd.report.view import EntryView

CONFIDENCE = 0.95
"""Confidence of every interval."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and sample standard deviation (None for a single value) of finite values."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Gain:
    """Mean difference to a baseline with the 95% interval; ``low`` and ``high`` are None if no spread is known."""

    mean: float
    low: float | None
    high: float | None
    count: int
    is_paired: bool

    @property
    def is_certain(self) -> bool:
        """Whether the interval exists and excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def finite(values: Sequence[float]) -> list[float]:
    """Return the values that are numbers, without COCO's -1 and NaN, which mean that there is no ground truth.

    Args:
        values: APs.
    """
    return [float(value) for value in values if math.isfinite(value) and value >= 0]


def summarize(values: Sequence[float]) -> Summary | None:
    """Return mean and spread of the finite values, or None if there is none.

    Args:
        values: APs of the seeds.
    """
    kept = finite(values)
    return _summary(kept) if kept else None


def gain(entry: EntryView, base: EntryView) -> Gain | None:
    """Return the gain in test AP of one entry over another, or None if one of them has no value.

    Args:
        entry: entry of the results.
        base: entry that it is compared with.
    """
    return gain_by_seed(_by_seed(entry), _by_seed(base))


def gain_by_seed(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Gain | None:
    """Return the gain in AP, paired over the seeds that both have, or None if one of them has no value.

    Args:
        ours: training seed -> AP.
        theirs: training seed -> AP of the baseline.
    """
    if not ours or not theirs:
        return None
    shared = sorted(set(ours) & set(theirs))
    if shared:
        differences = _summary([ours[seed] - theirs[seed] for seed in shared])
        error, freedom = _standard_error(differences), differences.count - 1
        return _gain(differences.mean, error, float(freedom), differences.count, is_paired=True)
    left, right = _summary(list(ours.values())), _summary(list(theirs.values()))
    error, freedom_welch = _welch(left, right)
    return _gain(left.mean - right.mean, error, freedom_welch, min(left.count, right.count), is_paired=False)


def student_t(freedom: float) -> float:
    """Return the half width of the 95% interval in standard errors.

    Args:
        freedom: degrees of freedom, above 0.
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))


def _gain(mean: float, error: float | None, freedom: float, count: int, *, is_paired: bool) -> Gain:
    if error is None:
        return Gain(mean, None, None, count, is_paired)
    half = student_t(freedom) * error if error > 0 else 0.0
    return Gain(mean, mean - half, mean + half, count, is_paired)


def _by_seed(entry: EntryView) -> dict[int, float]:
    pairs = zip(entry.seeds, entry.test_ap, strict=False)
    return {seed: ap for seed, ap in pairs if math.isfinite(ap) and ap >= 0}


def _summary(values: Sequence[float]) -> Summary:
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Summary(mean, None, len(values))
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Summary(mean, math.sqrt(squares / (len(values) - 1)), len(values))


def _standard_error(summary: Summary) -> float | None:
    return None if summary.deviation is None else summary.deviation / math.sqrt(summary.count)


def _welch(left: Summary, right: Summary) -> tuple[float | None, float]:
    """Return the standard error of the difference and Welch's degrees of freedom."""
    if left.deviation is None or right.deviation is None:
        return None, 0.0
    a, b = left.deviation**2 / left.count, right.deviation**2 / right.count
    if a + b == 0:
        return 0.0, 1.0
    freedom = (a + b) ** 2 / (a**2 / (left.count - 1) + b**2 / (right.count - 1))
    return math.sqrt(a + b), freedom
