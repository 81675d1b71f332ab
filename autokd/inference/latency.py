"""Time of one image, of several detectors in turn, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

WARM_UP = 2
"""Calls before the first that counts."""


@dataclass(frozen=True)
class Latency:
    """Median time of one image in milliseconds.

    Args:
        eager_ms: of the detector itself.
        exported_ms: of the exported one, in turn with it.
    """

    eager_ms: float
    exported_ms: float


def median_ms(calls: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Return the median time of each call, in milliseconds.

    Args:
        calls: functions, called one after another in each round.
        repeats: rounds that count.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    for round_ in range(WARM_UP + repeats):
        for times, call in zip(seconds, calls):
            began = time.perf_counter()
            call()
            if round_ >= WARM_UP:
                times.append(time.perf_counter() - began)
    return [1000 * statistics.median(times) for times in seconds]
