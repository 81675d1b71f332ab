"""Division of cores and GPUs among workers."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from autokd.jobs import WorkerResources


def num_local_cores() -> int:
    """Return the number of cores that this process may use, at least 1."""
    # A container or a batch system may pin the process to fewer cores than the machine has. macOS has no affinity.
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
    """Divide cores and GPUs among workers.

    Args:
        node_cores: number of cores of each node.
        num_gpus: number of GPUs on all nodes.
        workers: number of workers.
        threads_per_worker: 0: as many as leave every worker a place on some node, at least 1.
        gpus_per_worker: "auto": a whole GPU each if there are enough, else equal fractions of which a whole number fits
            on one GPU.

    Returns:
        Resources of each worker.
    """
    threads = threads_per_worker or _threads(node_cores, workers)
    if gpus_per_worker == "auto":
        fraction = 0.0 if num_gpus < 1 else 1.0 / math.ceil(max(1, workers) / num_gpus)
    else:
        fraction = float(gpus_per_worker)
    return WorkerResources(threads, "cuda" if fraction > 0 else "cpu", fraction)


def _threads(node_cores: Sequence[float], workers: int) -> int:
    # A worker is one process, so its threads lie on one node: cores that are left over on two nodes make no place.
    widest = int(max(node_cores, default=1))
    for threads in range(widest, 1, -1):
        if sum(int(cores // threads) for cores in node_cores) >= workers:
            return threads
    return 1


def own_resources(threads: int, gpus: float | Literal["auto"]) -> WorkerResources:
    """Return what the driver's own process may use.

    Args:
        threads: number of threads; 0: torch's default.
        gpus: "auto", or a number; above 0: a GPU is used if there is one.
    """
    if has_local_gpus(gpus):
        import torch

        if torch.cuda.is_available():
            return WorkerResources(threads, "cuda", 1.0)
    return WorkerResources(threads, "cpu", 0.0)


def has_local_gpus(gpus: float | Literal["auto"]) -> bool:
    """Return whether this machine has the device file of a GPU, and a run may use it.

    torch takes seconds to import, so it is not asked.

    Args:
        gpus: ``runtime.gpus_per_worker``.
    """
    return (gpus == "auto" or gpus > 0) and any(Path("/dev").glob("nvidia[0-9]*"))
