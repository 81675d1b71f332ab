"""Rate limits: a bucket of requests for each token, and one of wrong tokens for each address."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_BUCKETS = 10_000
"""Number of buckets that are kept; beyond it the one that was used least recently is forgotten."""


class RateLimit:
    """Token buckets (leaky-bucket algorithm as a meter), one a key.

    Args:
        per_s: requests a second on average.
        burst: requests at once.
        clock: seconds, monotonic.
    """

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, key: str) -> float:
        """Take one request from a bucket; return 0, or the seconds until the bucket has one again.

        Args:
            key: whose bucket.
        """
        with self._lock:
            level = self._level(key)
            is_allowed = level >= 1.0
            self._put(key, level - 1.0 if is_allowed else level)
            return 0.0 if is_allowed else (1.0 - level) / self._per_s

    def is_empty(self, key: str) -> bool:
        """Return whether a bucket has no request left; nothing is taken.

        Args:
            key: whose bucket.
        """
        with self._lock:
            return self._level(key) < 1.0

    def _level(self, key: str) -> float:
        level, at = self._buckets.get(key, (self._burst, self._clock()))
        return min(self._burst, level + (self._clock() - at) * self._per_s)

    def _put(self, key: str, level: float) -> None:
        self._buckets[key] = (level, self._clock())
        self._buckets.move_to_end(key)
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
