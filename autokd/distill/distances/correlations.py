"""One minus a cosine or a correlation.

Every distance is 0 with gradient 0 if both sides are equal. Distributions and log-odds are compared as probabilities.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import Distance
from autokd.distill.statistics import centered, mean, mean_over_cells, unit
from autokd.distill.term_inputs import TermInputs

_ROUNDING = 1e-6
"""A vector whose greatest deviation is below this part of its mean is constant: float32 resolves no better."""


class Cosine(Distance):
    """Mean over the region's cells of 1 - cos of the two vectors over the channels.

    Written as ||u - v||^2 / 2 of the unit vectors, which equals 1 - cos; 1 - cos itself is rounding alone near equality
    (in float32 below about 1e-7). A vector of zeros has no direction: its distance is 1/2 from any other and 0 from
    another of zeros. DetKDS, ICML 2024.
    """

    is_scale_free = True

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = features.values()
        gap_S1HW = (unit(student, (1,)) - unit(teacher, (1,))).square().sum(1, keepdim=True) / 2
        return mean(gap_S1HW, features.weights_SHW)


class Pearson(Distance):
    """Mean over channels of 1 - r, r the correlation over batch and the region's cells.

    Written as half the squared distance of the centered unit vectors, so that it is finite for a single cell. A
    constant channel has no direction, as in ``Cosine``. Distributions are compared as probabilities: of logits, that
    is the correlation of a class over the batch. PKD, arXiv:2207.02039, eq. 5; DIST, arXiv:2205.10536, eq. 9.
    """

    is_scale_free = True

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        weights = features.weights_SHW
        student, teacher = (self._unit(x, weights) for x in features.values())
        gap_SCHW = (student - teacher).square() / 2
        if weights is not None:
            gap_SCHW = gap_SCHW * weights[:, None]
        return gap_SCHW.sum() / gap_SCHW.shape[1]

    @staticmethod
    def _unit(x_SCHW: Tensor, weights_SHW: Tensor | None) -> Tensor:
        difference, _, varies = centered(x_SCHW, weights_SHW)
        return unit(difference * varies, (0, 2, 3), weights_SHW)


class PearsonChannels(Distance):
    """Mean over the region's cells of 1 - r, r the correlation of the two vectors over the channels.

    Written as ``Pearson``. Distributions are compared as probabilities. DIST, arXiv:2205.10536, eq. 8.
    """

    is_scale_free = True

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = (_centered_unit(x, (1,), None) for x in features.values())
        gap_S1HW = (student - teacher).square().sum(1, keepdim=True) / 2
        return mean(gap_S1HW, features.weights_SHW)


class CrossCorrelation(Distance):
    """Mean over channels and samples of 1 - r, r the normalized cross-correlation of the two over the cells.

    That is the correlation of a channel of a sample with the same of the other side, without shift; over the samples
    that have any cell that counts. Written as ``Pearson``. DetKDS, ICML 2024.
    """

    is_scale_free = True

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        weights = features.weights_SHW
        student, teacher = (_centered_unit(x, (2, 3), weights) for x in features.values())
        gap_SCHW = (student - teacher).square() / 2
        if weights is None:
            return gap_SCHW.sum() / max(gap_SCHW.shape[0] * gap_SCHW.shape[1], 1)
        num_filled = (weights > 0).flatten(1).any(1).sum()
        return (gap_SCHW * weights[:, None]).sum() / (num_filled * gap_SCHW.shape[1]).clamp_min(1)


def _centered_unit(x_SCHW: Tensor, dims: tuple[int, ...], weights_SHW: Tensor | None) -> Tensor:
    """Each vector over ``dims`` minus its (weighted) mean, scaled to length 1; 0 if it is constant up to rounding."""
    if weights_SHW is None:
        average = x_SCHW.mean(dims, keepdim=True)
        difference = x_SCHW - average
    else:
        average = mean_over_cells(x_SCHW, weights_SHW)
        difference = (x_SCHW - average) * (weights_SHW > 0)[:, None]
    varies = difference.abs().amax(dims, keepdim=True) > _ROUNDING * average.abs()
    return unit(difference * varies, dims, weights_SHW)
