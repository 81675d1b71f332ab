"""Differentiable exchanges between ranks, under one rule: gradients of parameters are summed over the ranks.

A value is either *shared out* (each rank holds its summand of it) or *whole* (each rank computes all of it, from the
same numbers). ``sum_of_shares`` leads from the first to the second, ``whole_rows`` makes whole what ranks know of
their images. Both let back to a rank what concerns its own images alone, so that the sum over ranks is the gradient
of one process. ``own_rows`` goes back from whole taps to those that a rank's heads look at; while a distiller measures
gradients on the whole taps, it puts together what the ranks' heads have to say.

Legend: G images of a global batch, B those of a rank, N numbers an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from autokd.training.parallel.shares import Share


class _SumOfShares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        total = share.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def sum_of_shares(share: Tensor) -> Tensor:
    """The sum over ranks, of the shape of ``share``; its gradient is that of this rank's summand."""
    total: Tensor = _SumOfShares.apply(share)
    return total


def _gathered(own_BN: Tensor, share: Share) -> Tensor:
    """(G, N): every rank's rows."""
    # Every rank sends as many rows, since not every backend can gather unequal ones.
    padded_BN = own_BN.new_zeros(max(share.sizes), own_BN.shape[1])
    padded_BN[: len(own_BN)] = own_BN
    parts = [torch.empty_like(padded_BN) for _ in share.sizes]
    dist.all_gather(parts, padded_BN)
    return torch.cat([part[:size] for part, size in zip(parts, share.sizes, strict=True)])


class _WholeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own_BN: Tensor, share: Share) -> Tensor:
        ctx.rows = share.rows
        return _gathered(own_BN, share)

    @staticmethod
    def backward(ctx: Any, gradient_GN: Tensor) -> tuple[Tensor, None]:
        return gradient_GN[ctx.rows], None


class _Divided(torch.autograd.Function):
    """The identity, whose gradient is divided."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, divisor: int) -> Tensor:
        ctx.divisor = divisor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient / ctx.divisor, None


def whole_rows(own: Sequence[Tensor], share: Share) -> list[Tensor]:
    """Tensors (B, ...) of this rank's images as (G, ...) of all; one exchange for all that have a gradient.

    Where the batch is not split the tensors are whole already, and each rank's gradient counts for its part.
    """
    if not share.is_split:
        return [_Divided.apply(value, len(share.sizes)) if value.requires_grad else value for value in own]
    whole: dict[int, Tensor] = {}
    for wants_gradient in (True, False):
        chosen = [i for i, value in enumerate(own) if value.requires_grad == wants_gradient]
        if not chosen:
            continue
        flat = [_flattened(own[i]) for i in chosen]
        gathered_GN = _WholeRows.apply(torch.cat(flat, dim=1), share)
        for i, part_GN in zip(chosen, gathered_GN.split([x.shape[1] for x in flat], dim=1), strict=True):
            whole[i] = _restored(part_GN, own[i])
    return [whole[i] for i in range(len(own))]


def _flattened(value: Tensor) -> Tensor:
    """(B, N), maps channels-last: that is how detectors give them."""
    return (value.permute(0, 2, 3, 1) if value.ndim == 4 else value).flatten(1)


def _restored(flat_GN: Tensor, like: Tensor) -> Tensor:
    if like.ndim != 4:
        return flat_GN.reshape(len(flat_GN), *like.shape[1:])
    channels, height, width = like.shape[1:]
    return flat_GN.reshape(len(flat_GN), height, width, channels).permute(0, 3, 1, 2)


@dataclass
class Measuring:
    """Whether gradients are taken to be measured, not to train by: every rank then needs them whole."""

    is_on: bool = False


class _OwnRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, share: Share, measuring: Measuring) -> Tensor:
        ctx.share, ctx.measuring, ctx.whole_shape = share, measuring, whole.shape
        return whole[share.rows].clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        share: Share = ctx.share
        if ctx.measuring.is_on:
            if share.is_split:
                return _restored(_gathered(_flattened(gradient), share), gradient), None, None
            total = gradient.clone()
            dist.all_reduce(total)
            return total, None, None
        if not share.is_split:
            return gradient * len(share.sizes), None, None  # ``whole_rows`` will divide it
        padded = gradient.new_zeros(ctx.whole_shape)
        padded[share.rows] = gradient
        return padded, None, None


def own_rows(whole: Tensor, share: Share, measuring: Measuring) -> Tensor:
    """(B, ...): this rank's rows of what ``whole_rows`` gave.

    While ``measuring`` the gradient on ``whole`` is that of all ranks; they must then take it together.
    """
    own: Tensor = _OwnRows.apply(whole, share, measuring)
    return own
