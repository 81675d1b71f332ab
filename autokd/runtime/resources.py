"""How cores and cards are divided among workers."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from autokd.outcomes import WorkerResources


def num_local_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def divide(
    node_cores: Sequence[float],
    num_gpus: float,
    *,
    workers: int,
    threads_per_worker: int = 0,
    gpus_per_worker: float | Literal["auto"] = "auto",
) -> WorkerResources:
    """What each of ``workers`` gets on nodes with so many cores each, and cards in all.

    Threads: as many as let every worker have a place on some node, at least one. Cards: a whole one each
    where there are enough, else equal fractions of which a whole number fits on a card.
    """
    threads = threads_per_worker or _threads(node_cores, workers)
    if gpus_per_worker == "auto":
        fraction = 0.0 if num_gpus < 1 else 1.0 / math.ceil(max(1, workers) / num_gpus)
    else:
        fraction = float(gpus_per_worker)
    return WorkerResources(threads, "cuda" if fraction > 0 else "cpu", fraction)


def _threads(node_cores: Sequence[float], workers: int) -> int:
    widest = int(max(node_cores, default=1))
    for threads in range(widest, 1, -1):
        if sum(int(cores // threads) for cores in node_cores) >= workers:
            return threads
    return 1


def own_resources(threads: int, gpus: float | Literal["auto"]) -> WorkerResources:
    """What the driver's process itself may use. torch is asked only where a card's device file exists."""
    use_card = gpus == "auto" or gpus > 0
    if use_card and any(Path("/dev").glob("nvidia[0-9]*")):
        import torch

        if torch.cuda.is_available():
            return WorkerResources(threads, "cuda", 1.0)
    return WorkerResources(threads, "cpu", 0.0)
