"""Bands of spatial frequencies: a map's part in the low or the high band of its Haar wavelets.

Legend: S samples (images, regions or patches), C channels, H x W cells; h x w blocks.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform

_LOW = 1


class HaarBand(Transform):
    """The orthogonal projection of each channel onto a band of the Haar wavelets of ``levels`` levels.

    The low band (``band`` 1) is what is constant on blocks of 2^levels x 2^levels cells, the mean of each block; the
    high band (2) is the rest, the wavelets of all levels. The bands are orthogonal: their squares sum to the map's
    own, and a squared difference of a band's parts equals that of its orthonormal wavelet coefficients. Blocks at odd
    edges are smaller; cells that do not count belong to no block. Layout map -> map. After FreeKD, arXiv:2311.12079,
    which compares the coefficients of three levels by l1, weighted by masks that its teacher has learned beforehand.
    """

    def __init__(self, context: BuildContext, levels: int, band: int) -> None:
        super().__init__(context)
        self.levels, self.is_low = levels, band == _LOW

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        members = None if features.members_SHW is None else features.members_SHW[:, None].to(x_SCHW.dtype)
        ones = x_SCHW.new_ones(1, 1, *x_SCHW.shape[2:]) if members is None else members
        counts_S1hw = block_sums(ones, self.levels).clamp_min(1)
        band = _Band.apply(x_SCHW, members, counts_S1hw, self.levels, self.is_low)  # type: ignore[no-untyped-call]
        return cast(Tensor, band)


class _Band(torch.autograd.Function):
    """The band, with a gradient of one projection where autograd would keep a map a level and go back through each."""

    @staticmethod
    def forward(
        ctx: Any, x_SCHW: Tensor, members_S1HW: Tensor | None, counts_S1hw: Tensor, levels: int, is_low: bool
    ) -> Tensor:
        ctx.save_for_backward(members_S1HW, counts_S1hw)
        ctx.levels, ctx.is_low = levels, is_low
        means_SChw = block_sums(x_SCHW if members_S1HW is None else x_SCHW * members_S1HW, levels) / counts_S1hw
        return expanded(means_SChw, 2**levels, x_SCHW.shape) if is_low else _without(x_SCHW, means_SChw, 2**levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        members_S1HW, counts_S1hw = ctx.saved_tensors
        (gradient_SCHW,) = gradients
        means_SChw = block_sums(gradient_SCHW, ctx.levels) / counts_S1hw
        if members_S1HW is None and not ctx.is_low:
            return _without(gradient_SCHW, means_SChw, 2**ctx.levels), None, None, None, None
        found_SCHW = expanded(means_SChw, 2**ctx.levels, gradient_SCHW.shape)
        if members_S1HW is not None:
            found_SCHW *= members_S1HW
        return found_SCHW if ctx.is_low else gradient_SCHW - found_SCHW, None, None, None, None


def block_sums(x_SCHW: Tensor, levels: int) -> Tensor:
    """Return the sum over each block of 2^levels x 2^levels cells, (S, C, h, w); those at odd edges are smaller.

    Halves are added level by level: the mean of equal numbers is then exactly that number, so the high band of a
    constant map is 0 and not rounding noise.
    """
    for _ in range(levels):
        height, width = x_SCHW.shape[2:]
        if height % 2 or width % 2:
            x_SCHW = functional.pad(x_SCHW, (0, width % 2, 0, height % 2))
        rows_SChW = x_SCHW[..., ::2, :] + x_SCHW[..., 1::2, :]
        x_SCHW = rows_SChW[..., ::2] + rows_SChW[..., 1::2]
    return x_SCHW


def expanded(x_SChw: Tensor, window: int, shape: torch.Size) -> Tensor:
    """Return the map of ``shape`` in which each number fills a block of ``window`` x ``window`` cells."""
    wide_SChW = _widened(x_SChw, window, shape[3])
    return wide_SChW.repeat_interleave(window, dim=2)[..., : shape[2], :]


def _without(x_SCHW: Tensor, means_SChw: Tensor, window: int) -> Tensor:
    """``x`` less the mean of its block. Row by row of the blocks: no map of the means is written."""
    out_SCHW = torch.empty_like(x_SCHW, memory_format=torch.contiguous_format)
    wide_SChW = _widened(means_SChw, window, x_SCHW.shape[3])
    for row in range(min(window, x_SCHW.shape[2])):
        to_SChW = out_SCHW[..., row::window, :]
        torch.sub(x_SCHW[..., row::window, :], wide_SChW[..., : to_SChW.shape[2], :], out=to_SChW)
    return out_SCHW


def _widened(x_SChw: Tensor, window: int, width: int) -> Tensor:
    return x_SChw.repeat_interleave(window, dim=3)[..., :width]
