"""Attention of each side's own: over the cells or the channels of its map.

"Cells" are the cells of the region: if a source masks, attention is over the cells that count, and the others do not
exist for it.

Legend: S samples (images, regions or patches), C channels, H x W cells, N = H * W.
"""

from __future__ import annotations

from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.statistics import log_softmax_over_cells, mean_over_cells, num_cells


class SpatialAttention(Transform):
    """Scale each cell by N * softmax over cells of mean_c |x| / temperature.

    Layout map -> map. FGD, arXiv:2111.11837, eq. 3. Each side by its own attention.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        weights = features.members_SHW
        energy_S1HW = x_SCHW.abs().mean(1, keepdim=True) / self.temperature
        share_S1HW = log_softmax_over_cells(energy_S1HW, weights).exp()
        return x_SCHW * (num_cells(x_SCHW, weights) * share_S1HW)


class ChannelAttention(Transform):
    """Scale each channel by (C * softmax over channels of mean_s |x| / temperature) ^ exponent.

    Layout map -> map. FGD, arXiv:2111.11837, eq. 4. Each side by its own attention. DetKDS's released code takes the
    root (exponent 0.5), so that squared differences would be weighted by the attention, as in FGD.
    """

    def __init__(self, context: BuildContext, temperature: float, exponent: float = 1.0) -> None:
        super().__init__(context)
        self.temperature, self.exponent = temperature, exponent

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        energy_SC11 = mean_over_cells(x_SCHW.abs(), features.members_SHW) / self.temperature
        channels = x_SCHW.shape[1]
        if self.exponent == 1.0:
            return x_SCHW * (channels * energy_SC11.softmax(1))
        # A power of a logarithm: the derivative of the root of a softmax that underflows to 0 is infinite.
        return x_SCHW * ((energy_SC11.log_softmax(1) * self.exponent).exp() * channels**self.exponent)
