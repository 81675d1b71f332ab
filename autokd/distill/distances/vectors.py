"""Distances between the vectors of cells.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Distance
from autokd.distill.statistics import sum_of_squares
from autokd.distill.term_inputs import TermInputs

_LEAST_TOTAL = 0.5
"""Least sum of weights, from the published max(1, 2 sum m r): a few unreliable cells do not become a full term."""


class L2Vectors(Distance):
    """Mean over the cells, by their weights, of ||s - t||^2 over the channels.

    The sum of weights is taken as 1/2 at least, as in the paper's sum m r ||A(S) - T||^2 / max(1, 2 sum m r), which is
    half of this. The released mask is repeated over the channels before it is summed: its divisor is
    max(1, 2 C sum m r), and half of this with ``per_channel``. Terms of different weights on the same maps share
    ||s - t||^2. Global Knowledge (ECCV 2022), arXiv:2210.09022, eq. 8.
    """

    def __init__(self, context: BuildContext, per_channel: int) -> None:
        super().__init__(context)
        self.per_channel = bool(per_channel)

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = features.values()
        # The key is of the maps alone: the pairs of a foreground and a background differ in their weights, not in them.
        gap_SHW = inputs.shared(
            ("squared gap", features.maps_key, features.layout),
            lambda: sum_of_squares(student - teacher, (1,))[:, 0],
        )
        weights_SHW = features.weights_SHW
        num_summed = student.shape[1] if self.per_channel else 1
        if weights_SHW is None:
            return gap_SHW.sum() / max(gap_SHW.numel() * num_summed, 1)
        return (gap_SHW * weights_SHW).sum() / (num_summed * weights_SHW.sum()).clamp_min(_LEAST_TOTAL)
