"""Transformations of the first kind: every number by one rule. One class a row of ``tables/global_steps``.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.distill.batch import Batch
from autokd.distill.knowledge import Knowledge
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.statistics import centred, log_softmax_over_cells, unit
from autokd.spec.operator import CELL_DISTRIBUTION, CHANNEL_DISTRIBUTION


class Standardise(Transform):
    """(x - mean) / (std + 1e-6), each channel over batch and cells, unbiased std.

    Layout map -> map. A channel that is constant up to rounding becomes 0, with no gradient.
    PKD, arXiv:2207.02039, section 3.2.
    """

    def change(self, x_SCHW: Tensor, knowledge: Knowledge) -> Tensor:
        difference, deviation, varies = centred(x_SCHW, knowledge.members_SHW)
        return difference * torch.where(varies, 1.0 / (deviation + 1e-6), 0.0)


class L2Channels(Transform):
    """Each cell's vector over the channels divided by its length.

    Layout map -> map. A cell of zeros stays as it is. DetKDS, ICML 2024.
    """

    def change(self, x_SCHW: Tensor, knowledge: Knowledge) -> Tensor:
        return unit(x_SCHW, (1,))


class L2Cells(Transform):
    """Each channel of each sample divided by its length over the cells.

    Layout map -> map. A channel of zeros stays as it is. DetKDS, ICML 2024.
    """

    def change(self, x_SCHW: Tensor, knowledge: Knowledge) -> Tensor:
        return unit(x_SCHW, (2, 3), knowledge.members_SHW)


class SoftmaxCells(Transform):
    """Each channel of each sample as a distribution over its cells: softmax_s(x / temperature).

    Layout map -> cell_distribution (log-probabilities). CWD, arXiv:2011.13256, eq. 2.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, knowledge: Knowledge, batch: Batch) -> Knowledge:
        weights = knowledge.members_SHW
        return knowledge.with_maps(
            log_softmax_over_cells(knowledge.student_SCHW / self.temperature, weights),
            log_softmax_over_cells(knowledge.teacher_SCHW / self.temperature, weights),
            layout=CELL_DISTRIBUTION,
            temperature=self.temperature,
        )


class SoftmaxChannels(Transform):
    """Each cell as a distribution over the channels: softmax_c(x / temperature).

    Layout map -> channel_distribution (log-probabilities). DetKDS, ICML 2024.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, knowledge: Knowledge, batch: Batch) -> Knowledge:
        return knowledge.with_maps(
            (knowledge.student_SCHW / self.temperature).log_softmax(1),
            (knowledge.teacher_SCHW / self.temperature).log_softmax(1),
            layout=CHANNEL_DISTRIBUTION,
            temperature=self.temperature,
        )
