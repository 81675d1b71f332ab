"""Attention of several together: of the samples of a batch, of the teacher for both sides, or of both sides.

"Cells" are the cells of the region: if a source masks, attention is over the cells that count, and the others do not
exist for it.

Legend: S samples (images, regions or patches), C channels, H x W cells, N = H * W.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.statistics import Weights, log_softmax_over_cells, mean_over_cells, num_cells
from autokd.distill.term_inputs import TermInputs
from autokd.distill.transforms.energies import magnitude, teacher_magnitude


class SampleAttention(Transform):
    """Scale each sample by S * softmax over samples of mean_cs |x| / temperature.

    Layout map -> map. S and the softmax are over the samples that have any cell that counts. Each side by its own
    attention. DetKDS, ICML 2024.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        members = features.members_SHW
        energy_S111 = mean_over_cells(x_SCHW.abs().mean(1, keepdim=True), members) / self.temperature
        if members is None:
            return x_SCHW * (len(x_SCHW) * energy_S111.softmax(0))
        is_present_S111 = (members > 0).flatten(1).any(1)[:, None, None, None]
        # -1e30 and not -inf: in a batch without any sample that counts the softmax would be NaN.
        share_S111 = energy_S111.masked_fill(~is_present_S111, -1e30).softmax(0)
        return x_SCHW * (is_present_S111.sum() * share_S111 * is_present_S111)


class TeacherAttention(Transform):
    """Both sides times sqrt(A_sp A_ch), the teacher's attention over cells and over channels.

    A_sp = N softmax_s(mean_c |t| / temperature), A_ch = C softmax_c(mean_s |t| / temperature): squared differences are
    then weighted by A_sp A_ch. Layout map -> map. FGD, arXiv:2111.11837, section 3.1.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        of_cells_S1HW, of_channels_SC11 = _energies(teacher_magnitude(features, 1, inputs), features.members_SHW)
        factor_SCHW = _factor(features, of_cells_S1HW / self.temperature, of_channels_SC11 / self.temperature)
        return features.with_maps(features.student_SCHW * factor_SCHW, features.teacher_SCHW * factor_SCHW)


class SharedAttention(Transform):
    """Both sides times sqrt(M_sp M_ch), the attention of both sides' magnitudes; no gradient through the student's.

    M_sp = N softmax_s((mean_c |s| + mean_c |t|) / temperature), M_ch = C softmax_c((mean_s |s| + mean_s |t|) /
    temperature). Layout map -> map. FBKD, ICLR 2021, section 3.1 (the released code takes the mean of both softmaxes).
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        factor_SCHW = self.factor_SCHW(features, inputs)
        return features.with_maps(features.student_SCHW * factor_SCHW, features.teacher_SCHW * factor_SCHW)

    def factor_SCHW(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        """Return the root of the attention, by which both sides are multiplied."""
        members = features.members_SHW
        student = (energy.detach() for energy in _energies(magnitude(features.student_SCHW, 1), members))
        teacher = _energies(teacher_magnitude(features, 1, inputs), members)
        of_cells_S1HW, of_channels_SC11 = ((s + t) / self.temperature for s, t in zip(student, teacher))
        return _factor(features, of_cells_S1HW, of_channels_SC11)


def _energies(magnitude_SCHW: Tensor, members: Weights) -> tuple[Tensor, Tensor]:
    """(S, 1, H, W), (S, C, 1, 1): mean |x| over the channels of a cell, and over the cells of a channel."""
    return magnitude_SCHW.mean(1, keepdim=True), mean_over_cells(magnitude_SCHW, members)


def _factor(features: FeaturePair, cell_logits_S1HW: Tensor, channel_logits_SC11: Tensor) -> Tensor:
    """The product of the roots of the softmaxes, each scaled to mean 1.

    The root is taken as half of a logarithm: a root of a softmax that underflows to 0 has an infinite derivative.
    """
    student, members = features.student_SCHW, features.members_SHW
    count = torch.as_tensor(num_cells(student, members), dtype=student.dtype, device=student.device)
    of_cells_S1HW = (log_softmax_over_cells(cell_logits_S1HW, members) / 2).exp() * count.sqrt()
    of_channels_SC11 = (channel_logits_SC11.log_softmax(1) / 2).exp() * student.shape[1] ** 0.5
    return of_cells_S1HW * of_channels_SC11
