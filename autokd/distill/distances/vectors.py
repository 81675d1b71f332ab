"""Distances between the vectors of cells, reduced as published systems do it.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

from torch import Tensor

from autokd.distill.batch import Batch
from autokd.distill.knowledge import Knowledge
from autokd.distill.operators import Distance

_LEAST_TOTAL = 0.5


class L2Vectors(Distance):
    """Mean over the cells, by their weights, of ||s - t||^2 over the channels.

    The sum of weights is taken as 1/2 at least, as in the published sum m r ||A(S) - T||^2 / max(1, 2 sum m r),
    which is half of this. Global Knowledge (ECCV 2022), arXiv:2210.09022, eq. 8.
    """

    def forward(self, knowledge: Knowledge, batch: Batch) -> Tensor:
        student, teacher = knowledge.values()
        gap_SHW = (student - teacher).square().sum(1)
        weights_SHW = knowledge.weights_SHW
        if weights_SHW is None:
            return gap_SHW.sum() / max(gap_SHW.numel(), 1)
        return (gap_SHW * weights_SHW).sum() / weights_SHW.sum().clamp_min(_LEAST_TOTAL)
