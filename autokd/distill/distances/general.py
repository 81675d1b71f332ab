"""Distances: how far the student is from the teacher. One class a row of ``tables/distances``.

Every distance is 0 with gradient 0 where both sides are equal. l1, l2 and smooth_l1 compare probabilities where
the layout is a distribution.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from autokd.distill.batch import Batch
from autokd.distill.knowledge import Knowledge
from autokd.distill.operators import BuildContext, Distance
from autokd.distill.statistics import centred, mean, unit
from autokd.spec.operator import CELL_DISTRIBUTION


class L1(Distance):
    """mean |s - t| over samples, channels and the region's cells. DetKDS, ICML 2024."""

    def forward(self, knowledge: Knowledge, batch: Batch) -> Tensor:
        student, teacher = knowledge.values()
        return mean((student - teacher).abs(), knowledge.weights_SHW)


class L2(Distance):
    """mean (s - t)^2 over samples, channels and the region's cells. FitNets, arXiv:1412.6550, eq. 3."""

    def forward(self, knowledge: Knowledge, batch: Batch) -> Tensor:
        student, teacher = knowledge.values()
        if knowledge.weights_SHW is None and student.numel():
            return functional.mse_loss(student, teacher)
        return mean((student - teacher).square(), knowledge.weights_SHW)


class SmoothL1(Distance):
    """mean of (s - t)^2 / (2 beta) where |s - t| < beta, else |s - t| - beta / 2.

    Fast R-CNN, arXiv:1504.08083, eq. 3.
    """

    def __init__(self, context: BuildContext, beta: float) -> None:
        super().__init__(context)
        self.beta = beta

    def forward(self, knowledge: Knowledge, batch: Batch) -> Tensor:
        student, teacher = knowledge.values()
        huber = functional.smooth_l1_loss(student, teacher, reduction="none", beta=self.beta)
        return mean(huber, knowledge.weights_SHW)


class Cosine(Distance):
    """Mean over the region's cells of 1 - cos of the two vectors over the channels.

    Written as half the squared distance of the unit vectors, which is the same, and exact near 0. A vector of
    zeros has no direction: it is 1/2 away from any other and 0 from another of zeros. DetKDS, ICML 2024.
    """

    def forward(self, knowledge: Knowledge, batch: Batch) -> Tensor:
        student, teacher = knowledge.values()
        gap_S1HW = (unit(student, (1,)) - unit(teacher, (1,))).square().sum(1, keepdim=True) / 2
        return mean(gap_S1HW, knowledge.weights_SHW)


class Pearson(Distance):
    """Mean over channels of 1 - r, r the correlation over batch and the region's cells.

    Written as half the squared distance of the centred unit vectors, so that it is finite for a single cell. A
    constant channel has no direction, as in ``Cosine``. PKD, arXiv:2207.02039, eq. 5.
    """

    def forward(self, knowledge: Knowledge, batch: Batch) -> Tensor:
        weights = knowledge.weights_SHW
        student = self._unit(knowledge.student_SCHW, weights)
        gap_SCHW = (student - self._unit(knowledge.teacher_SCHW, weights)).square() / 2
        if weights is not None:
            gap_SCHW = gap_SCHW * weights[:, None]
        return gap_SCHW.sum() / gap_SCHW.shape[1]

    @staticmethod
    def _unit(x_SCHW: Tensor, weights_SHW: Tensor | None) -> Tensor:
        difference, _, varies = centred(x_SCHW, weights_SHW)
        return unit(difference * varies, (0, 2, 3), weights_SHW)


class KL(Distance):
    """tau^2 * mean over distributions of KL(teacher || student) = sum p_t (log p_t - log p_s).

    Over cells: summed over the region's cells, averaged over channels and over the samples that have any. Over
    channels: summed over channels, averaged over the region's cells. CWD, arXiv:2011.13256, eq. 3.
    """

    def forward(self, knowledge: Knowledge, batch: Batch) -> Tensor:
        student_SCHW, teacher_SCHW = knowledge.student_SCHW, knowledge.teacher_SCHW
        divergence = functional.kl_div(student_SCHW, teacher_SCHW, reduction="none", log_target=True)
        return knowledge.temperature**2 * self._average(divergence, knowledge)

    @staticmethod
    def _average(divergence_SCHW: Tensor, knowledge: Knowledge) -> Tensor:
        weights = knowledge.weights_SHW
        if knowledge.layout != CELL_DISTRIBUTION:
            return mean(divergence_SCHW.sum(1, keepdim=True), weights)
        num_samples, channels = divergence_SCHW.shape[:2]
        if weights is None:
            return divergence_SCHW.sum() / max(num_samples * channels, 1)
        num_filled = (weights > 0).flatten(1).any(1).sum()
        return divergence_SCHW.sum() / (num_filled * channels).clamp_min(1)
