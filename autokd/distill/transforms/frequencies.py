"""Bands of spatial frequencies: a map's part in the low or the high band of its Haar wavelets.

Legend: S samples (images, regions or patches), C channels, H x W cells; h x w blocks.
"""

from __future__ import annotations

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
        members = features.members_SHW
        if members is None:
            sums_SChw = block_sums(x_SCHW, self.levels)
            counts_S1hw = block_sums(x_SCHW.new_ones(1, 1, *x_SCHW.shape[2:]), self.levels)
        else:
            sums_SChw = block_sums(x_SCHW * members[:, None], self.levels)
            counts_S1hw = block_sums(members[:, None].to(x_SCHW.dtype), self.levels).clamp_min(1)
        window, (height, width) = 2**self.levels, x_SCHW.shape[2:]
        means_SCHW = expanded(sums_SChw / counts_S1hw, window)[..., :height, :width]
        return means_SCHW.contiguous() if self.is_low else x_SCHW - means_SCHW


def block_sums(x_SCHW: Tensor, levels: int) -> Tensor:
    """Return the sum over each block of 2^levels x 2^levels cells, (S, C, h, w); those at odd edges are smaller.

    Halves are added level by level: the mean of equal numbers is then exactly that number, so the high band of a
    constant map is 0 and not rounding noise.
    """
    for _ in range(levels):
        height, width = x_SCHW.shape[2:]
        if height % 2 or width % 2:
            x_SCHW = functional.pad(x_SCHW, (0, width % 2, 0, height % 2))
        rows_SChW = x_SCHW.unflatten(2, (-1, 2)).sum(3)
        x_SCHW = rows_SChW.unflatten(3, (-1, 2)).sum(4)
    return x_SCHW


def expanded(x_SChw: Tensor, window: int) -> Tensor:
    """Return the map in which each number fills a block of ``window`` x ``window`` cells."""
    blocks = x_SChw[:, :, :, None, :, None].expand(-1, -1, -1, window, -1, window)
    return blocks.flatten(4, 5).flatten(2, 3)
