"""Processes that share a training, without Ray: plain torch.distributed over gloo, which meet through a file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as processes


def in_ranks(count: int, work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Call ``work(*arguments)`` on ``count`` ranks of one process group; return what each of them returns."""
    folder.mkdir(parents=True, exist_ok=True)
    processes.spawn(_rank, (count, work, folder, arguments), nprocs=count)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _rank(rank: int, count: int, work: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
    try:
        torch.save(copy.deepcopy(work(*arguments)), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
