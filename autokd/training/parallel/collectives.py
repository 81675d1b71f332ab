"""Differentiable exchanges between ranks, under one rule: gradients of parameters are summed over the ranks.

The rule makes DDP's sum over ranks (``data_parallel.py``) the gradient that one process would compute. It holds if
every path from a parameter to the loss is differentiated on exactly one rank, or by 1 / ``count`` on each. So a value
is one of two kinds:

- *partial*: each rank holds its summand of the value (a task loss of its own images);
- *global*: each rank computes the value of all images, from the same numbers (a distillation loss).

``sum_over_ranks`` leads from partial to global, ``gather_rows`` makes the tensors of local images global. In backward
both hand a rank the gradient of its own images alone: the other ranks compute the same global loss, and each adds its
own images' part to the sum. ``local_rows`` leads back from gathered maps to the local images that a rank's heads see.

Legend: G images of a global batch, B those of a rank, N numbers of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from autokd.training.shards import BatchShard


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, summand: Tensor) -> Tensor:
        total = summand.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Not reduced: the other ranks differentiate their own summands, and DDP adds the results.
        return gradient


def sum_over_ranks(summand: Tensor) -> Tensor:
    """Return the sum over ranks of ``summand``, in its shape; the gradient reaches this rank's summand alone."""
    total: Tensor = _SumOverRanks.apply(summand)
    return total


def _gathered(local_BN: Tensor, shard: BatchShard) -> Tensor:
    """Return (G, N): the rows of every rank."""
    # Padded to the largest shard, since not every backend can gather tensors of unequal sizes.
    padded_BN = local_BN.new_zeros(max(shard.sizes), local_BN.shape[1])
    padded_BN[: len(local_BN)] = local_BN
    parts = [torch.empty_like(padded_BN) for _ in shard.sizes]
    dist.all_gather(parts, padded_BN)
    return torch.cat([part[:size] for part, size in zip(parts, shard.sizes, strict=True)])


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local_BN: Tensor, shard: BatchShard) -> Tensor:
        ctx.rows = shard.rows
        return _gathered(local_BN, shard)

    @staticmethod
    def backward(ctx: Any, gradient_GN: Tensor) -> tuple[Tensor, None]:
        # No exchange: every rank has the same global gradient, and answers for its own images.
        return gradient_GN[ctx.rows], None


class _DivideGradient(torch.autograd.Function):
    """The identity, whose gradient is divided."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, divisor: int) -> Tensor:
        ctx.divisor = divisor
        # A new tensor over the same values, so that autograd does not take the input itself for the output.
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient / ctx.divisor, None


def gather_rows(local: Sequence[Tensor], shard: BatchShard) -> list[Tensor]:
    """Gather tensors of this rank's images into tensors of all images.

    Args:
        local: tensors (B, ...), the same ones in the same order on every rank.
        shard: the rank's part of the batch. If it is not split, the tensors are global already and keep their values;
            every rank then differentiates the same loss of the same images, so each gradient is divided by the number
            of ranks.

    Returns:
        Tensors (G, ...) in the order of the global batch.
    """
    if not shard.is_split:
        return [_DivideGradient.apply(value, len(shard.sizes)) if value.requires_grad else value for value in local]
    gathered: dict[int, Tensor] = {}
    # One exchange for all tensors with a gradient and one for the others: latency costs more than bytes, and an
    # exchange of both kinds would give the ones without a gradient a graph.
    for wants_gradient in (True, False):
        chosen = [i for i, value in enumerate(local) if value.requires_grad == wants_gradient]
        if not chosen:
            continue
        flat = [_flattened(local[i]) for i in chosen]
        gathered_GN = _GatherRows.apply(torch.cat(flat, dim=1), shard)
        for i, part_GN in zip(chosen, gathered_GN.split([x.shape[1] for x in flat], dim=1), strict=True):
            gathered[i] = _restored(part_GN, local[i])
    return [gathered[i] for i in range(len(local))]


def _flattened(value: Tensor) -> Tensor:
    """Return (B, N). Maps are flattened channels-last, as detectors give them, so that no copy is made."""
    return (value.permute(0, 2, 3, 1) if value.ndim == 4 else value).flatten(1)


def _restored(flat_GN: Tensor, like: Tensor) -> Tensor:
    """Undo ``_flattened``: (G, N) in the shape and memory format of ``like``."""
    if like.ndim != 4:
        return flat_GN.reshape(len(flat_GN), *like.shape[1:])
    channels, height, width = like.shape[1:]
    return flat_GN.reshape(len(flat_GN), height, width, channels).permute(0, 3, 1, 2)


@dataclass
class Measuring:
    """Whether the current backward pass measures gradients on the gathered maps, instead of training by them.

    A distiller with relative weights measures the norm of the task's gradient on the maps. Every rank must then see
    the gradient of all images, or ranks would derive different weights.
    """

    is_on: bool = False


class _LocalRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gathered: Tensor, shard: BatchShard, measuring: Measuring) -> Tensor:
        ctx.shard, ctx.measuring, ctx.gathered_shape = shard, measuring, gathered.shape
        # A copy, since heads may change their input in place, which autograd forbids for a view that a custom function
        # returns, and since the gathered maps must keep their values for the distiller.
        return gathered[shard.rows].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # ``measuring`` is read here and not in forward: one graph is differentiated twice, first to measure (while
        # the distiller runs), then to train.
        shard: BatchShard = ctx.shard
        if ctx.measuring.is_on:
            if shard.is_split:
                return _restored(_gathered(_flattened(gradient), shard), gradient), None, None
            total = gradient.clone()
            dist.all_reduce(total)
            return total, None, None
        if not shard.is_split:
            # ``gather_rows`` divides what reaches it by ``count``, for the distiller's sake. The gradient of the heads
            # is this rank's summand already, so it is multiplied to leave that division unchanged.
            return gradient * len(shard.sizes), None, None
        padded = gradient.new_zeros(ctx.gathered_shape)
        padded[shard.rows] = gradient
        return padded, None, None


def local_rows(gathered: Tensor, shard: BatchShard, measuring: Measuring) -> Tensor:
    """Return (B, ...): this rank's rows of a tensor (G, ...) of ``gather_rows``.

    While ``measuring`` is on, backward exchanges gradients: all ranks must then differentiate together.
    """
    local: Tensor = _LocalRows.apply(gathered, shard, measuring)
    return local
