"""Softmaxes: a map as distributions over its cells or its channels.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.statistics import log_softmax_over_cells
from autokd.distill.term_inputs import TermInputs
from autokd.spec.operator import CELL_DISTRIBUTION, CHANNEL_DISTRIBUTION


class SoftmaxCells(Transform):
    """Each channel of each sample as a distribution over its cells: softmax_s(x / temperature).

    Layout map or scalar_map -> cell_distribution (log-probabilities). CWD, arXiv:2011.13256, eq. 2.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        weights = features.members_SHW
        return features.with_maps(
            log_softmax_over_cells(features.student_SCHW / self.temperature, weights),
            log_softmax_over_cells(features.teacher_SCHW / self.temperature, weights),
            layout=CELL_DISTRIBUTION,
            temperature=self.temperature,
        )


class SoftmaxChannels(Transform):
    """Each cell as a distribution over the channels: softmax_c(x / temperature).

    Layout map or logits -> channel_distribution (log-probabilities); of logits, over the classes. DetKDS, ICML 2024.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        return features.with_maps(
            (features.student_SCHW / self.temperature).log_softmax(1),
            (features.teacher_SCHW / self.temperature).log_softmax(1),
            layout=CHANNEL_DISTRIBUTION,
            temperature=self.temperature,
        )
