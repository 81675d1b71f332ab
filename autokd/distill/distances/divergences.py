"""Divergences between distributions.

Each is summed within a distribution, times tau^2 (tau is the softmax's temperature; the gradient falls with 1 / tau^2,
Hinton et al., arXiv:1503.02531, section 2), and averaged: distributions over cells over channels and the samples that
have a cell that counts, distributions over channels over the region's cells. 0 with gradient 0 if both sides are
equal.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Distance
from autokd.distill.statistics import mean, num_cells
from autokd.distill.term_inputs import TermInputs
from autokd.spec.operator import CELL_DISTRIBUTION


class KL(Distance):
    """tau^2 * mean over distributions of KL(teacher || student) = sum p_t (log p_t - log p_s).

    CWD, arXiv:2011.13256, eq. 3. Detectors' releases divide in other ways. LD's takes the mean over classes or bins in
    place of the sum (``per_member``), and sums over the edges of positives (``divisor`` 2); Global Knowledge's divides
    the weighted sum by the number of positives (``divisor`` 1).
    """

    def __init__(self, context: BuildContext, per_member: int, divisor: int) -> None:
        super().__init__(context)
        self.per_member, self.divisor = bool(per_member), divisor

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = features.student_SCHW, features.teacher_SCHW
        terms = functional.kl_div(student, teacher, reduction="none", log_target=True)
        if self.per_member:
            terms = terms / _num_members(features)
        return _average(terms, features) if self.divisor == 0 else self._sum(terms, features)

    def _sum(self, terms_SCHW: Tensor, features: FeaturePair) -> Tensor:
        """Return the weighted sum over distributions, divided by the number of those that count if ``divisor`` is 1."""
        dims = (2, 3) if features.layout == CELL_DISTRIBUTION else (1,)
        divergences = terms_SCHW.sum(dims).clamp_min(0.0)  # (S, C) or (S, H, W)
        weights_SHW = features.weights_SHW
        if weights_SHW is None:
            counts = divergences.detach().new_ones(divergences.shape)
        elif features.layout == CELL_DISTRIBUTION:
            counts = (weights_SHW > 0).flatten(1).any(1)[:, None].to(divergences).expand(divergences.shape)
        else:
            counts, divergences = (weights_SHW > 0).to(divergences), divergences * weights_SHW
        total = features.temperature**2 * (divergences * counts).sum()
        return total / counts.sum().clamp_min(1) if self.divisor == 1 else total


class KLReverse(Distance):
    """tau^2 * mean over distributions of KL(student || teacher) = sum p_s (log p_s - log p_t).

    DetKDS, ICML 2024 (KL the other way: the student avoids what the teacher excludes).
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = features.student_SCHW, features.teacher_SCHW
        return _average(student.exp() * (student - teacher), features)


class JensenShannon(Distance):
    """tau^2 * mean over distributions of (KL(p_s || m) + KL(p_t || m)) / 2, m = (p_s + p_t) / 2; at most log 2.

    Written as sum m (h tanh h - log cosh h), h = (log p_s - log p_t) / 2, which no rounding makes negative.
    Lin, IEEE Trans. Inf. Theory 37(1), 1991, eq. 4.1.
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = features.student_SCHW, features.teacher_SCHW
        middle_SCHW = (student.exp() + teacher.exp()) / 2
        half_SCHW = ((student - teacher) / 2).abs()
        # log cosh h = h + log((1 + exp(-2 h)) / 2), as cosh overflows in float32 for h > 89; h (tanh h - 1) goes to 0
        # for large h.
        bent_SCHW = half_SCHW * (half_SCHW.tanh() - 1) - (-2 * half_SCHW).exp().log1p() + math.log(2)
        return _average(middle_SCHW * bent_SCHW, features)


class CauchySchwarz(Distance):
    """tau^2 * mean over distributions of -log(<p_s, p_t> / (||p_s|| ||p_t||)).

    Principe, Information Theoretic Learning, 2010, section 2.4.
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = features.student_SCHW, features.teacher_SCHW
        dims = (2, 3) if features.layout == CELL_DISTRIBUTION else (1,)
        lengths = ((2 * x).logsumexp(dims, keepdim=True) / 2 for x in (student, teacher))
        divergence = sum(lengths) - (student + teacher).logsumexp(dims, keepdim=True)
        return _average(divergence.clamp_min(0.0), features)


def _average(x_SCHW: Tensor, features: FeaturePair) -> Tensor:
    """Return tau^2 times the mean over distributions.

    Args:
        x_SCHW: summands of the divergences, or whole divergences with 1 in place of the axes that they are summed over.
        features: the pair, for its layout, temperature and cells that count.
    """
    weights, channels = features.weights_SHW, features.student_SCHW.shape[1]
    scale = features.temperature**2
    # A divergence is never negative: rounding that leaves a sum below 0 is cut off, and its gradient with it.
    if features.layout != CELL_DISTRIBUTION:
        return scale * mean(x_SCHW.sum(1, keepdim=True).clamp_min(0.0), weights)
    total = x_SCHW.sum((2, 3)).clamp_min(0.0).sum()
    if weights is None:
        return scale * total / max(len(x_SCHW) * channels, 1)
    num_filled = (weights > 0).flatten(1).any(1).sum()
    return scale * total / (num_filled * channels).clamp_min(1)


def _num_members(features: FeaturePair) -> Tensor | int:
    """Return the number of members of each distribution: channels, or (S, 1, 1, 1) cells that count; at least 1."""
    if features.layout != CELL_DISTRIBUTION:
        return max(features.student_SCHW.shape[1], 1)
    count = num_cells(features.student_SCHW, features.weights_SHW)
    return max(count, 1) if isinstance(count, int) else count.clamp_min(1)
