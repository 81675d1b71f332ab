"""Statistics over the cells that count, finite even if there is none.

A statistic over cells is always over the cells of the region: cells of weight 0 do not exist for it.

Legend: S samples, C channels, H x W cells. Weights are None (all cells alike) or (S, H, W) >= 0.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

Weights = Tensor | None

_NO_LENGTH = 1e-12
"""A vector shorter than this has no direction. Its square, 1e-24, is still a normal float32 number."""
_ROUNDING = 1e-6
"""A channel whose deviation is below this part of its mean is constant: float32 resolves no better."""
_NO_LOGIT = -1e30
"""Logit of a cell that does not count. Finite: with -inf a sample without any cell that counts would be NaN."""
NO_LOG_PROBABILITY = -1e4
"""The log-probability of a cell that does not count: its probability is exactly 0 in float32. Finite, so that a
difference of two of them is 0 and not NaN, as a divergence p (log p - log q) needs."""


def mean(x_SCHW: Tensor, weights_SHW: Weights) -> Tensor:
    """Return the mean over samples, channels and (weighted) cells, a scalar; 0 if no cell counts."""
    if weights_SHW is None:
        # The sum of nothing is 0 with a graph; torch's mean of nothing is NaN.
        return x_SCHW.mean() if x_SCHW.numel() else x_SCHW.sum()
    total = (x_SCHW * weights_SHW[:, None]).sum()
    return total / (weights_SHW.sum() * x_SCHW.shape[1]).clamp_min(_NO_LENGTH)


def mean_over_cells(x_SCHW: Tensor, weights_SHW: Weights) -> Tensor:
    """Return each channel's mean over the cells of its sample, (S, C, 1, 1); 0 if no cell counts."""
    if weights_SHW is None:
        # The gradient of a sum is an expanded view; that of torch's mean is written out, a map in size.
        return x_SCHW.sum((2, 3), keepdim=True) / (x_SCHW.shape[2] * x_SCHW.shape[3])
    weights_S1HW = weights_SHW[:, None]
    total = weights_S1HW.sum((2, 3), keepdim=True).clamp_min(_NO_LENGTH)
    return (x_SCHW * weights_S1HW).sum((2, 3), keepdim=True) / total


def num_cells(x_SCHW: Tensor, weights_SHW: Weights) -> Tensor | int:
    """Return the number of cells of each sample that count: an int, or (S, 1, 1, 1)."""
    if weights_SHW is None:
        return x_SCHW.shape[2] * x_SCHW.shape[3]
    return (weights_SHW > 0).sum((1, 2)).to(x_SCHW.dtype)[:, None, None, None]


def centered(x_SCHW: Tensor, weights_SHW: Weights) -> tuple[Tensor, Tensor, Tensor]:
    """Subtract each channel's mean over samples and cells.

    Args:
        x_SCHW: any map.
        weights_SHW: None, or 1 for the cells that count and 0 for the others.

    Returns:
        The centered map (also at cells that do not count), the channels' unbiased standard deviation (1, C, 1, 1), and
        which channels vary at all (1, C, 1, 1). One cell, or a constant channel, has deviation 0 with gradient 0.
    """
    if weights_SHW is None:
        count = x_SCHW.shape[0] * x_SCHW.shape[2] * x_SCHW.shape[3]
        difference, squares, average = _Centering.apply(x_SCHW)  # type: ignore[no-untyped-call]
        variance = squares / max(count - 1, 1)
    else:
        weights_S1HW, count_ = weights_SHW[:, None], weights_SHW.sum()
        average = (x_SCHW * weights_S1HW).sum((0, 2, 3), keepdim=True) / count_.clamp_min(_NO_LENGTH)
        difference = x_SCHW - average
        squares = (difference.square() * weights_S1HW).sum((0, 2, 3), keepdim=True)
        variance = squares / (count_ - 1).clamp_min(1)
    varies = variance > (_ROUNDING * average).square()
    # Two nested ``where``: the derivative of a root is infinite at 0, and backward multiplies it by the outer mask's 0,
    # which is NaN. The inner one keeps 0 from the root. So wherever a root or a quotient is guarded in this package.
    deviation = torch.where(varies, torch.where(varies, variance, 1.0).sqrt(), 0.0)
    return difference, deviation, varies


def unit(x: Tensor, dims: tuple[int, ...], weights_SHW: Weights = None) -> Tensor:
    """Divide ``x`` by its length over ``dims``; a vector of length 0 stays 0, with gradient 0."""
    if weights_SHW is None:
        squared_length = sum_of_squares(x, dims)
    else:
        squared_length = (x.square() * weights_SHW[:, None]).sum(dims, keepdim=True)
    has_direction = squared_length > _NO_LENGTH**2
    return x * torch.where(has_direction, torch.where(has_direction, squared_length, 1.0).rsqrt(), 0.0)


def log_softmax_over_cells(x_SCHW: Tensor, weights_SHW: Weights) -> Tensor:
    """Return the log softmax of each channel over the cells that count; ``NO_LOG_PROBABILITY`` at the others."""
    if weights_SHW is None:
        return x_SCHW.flatten(2).log_softmax(-1).view_as(x_SCHW)
    left_out_S1HW = weights_SHW[:, None] <= 0
    logits = x_SCHW.masked_fill(left_out_S1HW, _NO_LOGIT)
    return logits.flatten(2).log_softmax(-1).view_as(x_SCHW).masked_fill(left_out_S1HW, NO_LOG_PROBABILITY)


def sum_of_squares(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return the sum of x^2 over ``dims``, which stay as 1."""
    return cast(Tensor, _SumOfSquares.apply(x, dims))  # type: ignore[no-untyped-call]


class _SumOfSquares(torch.autograd.Function):
    """A sum of squares that saves x alone and whose gradient takes one pass over it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x)
        return x.square().sum(dims, keepdim=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return 2 * gradients[0] * x, None


class _Centering(torch.autograd.Function):
    """Each channel less its mean over samples and cells, the sum of its squares, and that mean (without gradient).

    (S, C, H, W), (1, C, 1, 1), (1, C, 1, 1). Its gradient takes three passes over the map, where autograd takes ten.
    """

    @staticmethod
    def forward(ctx: Any, x_SCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        average = x_SCHW.mean((0, 2, 3), keepdim=True)
        difference = x_SCHW - average
        # Norms over the cells first: one fused pass, where square() would write a whole map before it is summed.
        squares = torch.linalg.vector_norm(difference, dim=(2, 3), keepdim=True).square().sum(0, keepdim=True)
        ctx.save_for_backward(difference)
        ctx.mark_non_differentiable(average)
        ctx.set_materialize_grads(False)  # an output without use brings None, not a map of zeros
        return difference, squares, average

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Tensor | None:
        of_difference, of_squares, _ = gradients
        (difference,) = ctx.saved_tensors
        if of_difference is None:
            # The gradient through the mean is the sum of a centered map, which is 0.
            return None if of_squares is None else 2 * of_squares * difference
        centered_gradient = of_difference - of_difference.mean((0, 2, 3), keepdim=True)
        return centered_gradient if of_squares is None else centered_gradient.addcmul_(difference, 2 * of_squares)
