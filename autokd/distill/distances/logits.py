"""Distances between class logits, or between log-odds of yes-or-no questions.

Legend: S samples (images), C or K classes, H x W cells (candidates in one row).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Distance
from autokd.distill.statistics import mean
from autokd.distill.term_inputs import TermInputs

_NO_LOGIT = -1e30
"""Logit of a class that is left out. Finite: with a single class the rest is empty, and -inf would give NaN."""


class BinaryCrossEntropy(Distance):
    """Each number a yes-or-no question: tau^2 sum |p_s - p_t|^focus CE(p_t, p_s) / max(1, sum over cells of max_c p_t).

    The factor is detached: it is a weight and not part of what is minimized. It makes the term 0 if both agree. The
    published losses divide by the number of positive candidates, which each detector counts in its own way; the sum of
    the teacher's top probabilities is the teacher's estimate of that number. BCKD, arXiv:2308.14286, eqs. 5-6; as
    "quality focal loss" in CrossKD, arXiv:2306.11369, section 3.3.
    """

    def __init__(self, context: BuildContext, focus: float) -> None:
        super().__init__(context)
        self.focus = focus

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, weights = features.student_SCHW, features.weights_SHW
        target = features.teacher_SCHW.sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(student, target, reduction="none")
        entropy = entropy * (student.detach().sigmoid() - target).abs().pow(self.focus)
        likeliest_SHW = target.amax(1) if target.numel() else target.sum(1)
        if weights is not None:
            entropy, likeliest_SHW = entropy * weights[:, None], likeliest_SHW * weights
        return features.temperature**2 * entropy.sum() / likeliest_SHW.sum().clamp_min(1.0)


class BinaryKL(Distance):
    """Each number a yes-or-no question: tau^2 KL(teacher || student), summed over channels, averaged over cells.

    MLKD (multi-label logits distillation), arXiv:2308.06453, eq. 3.
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student, teacher = features.student_SCHW, features.teacher_SCHW
        # log sigmoid in one function: the logarithm of a sigmoid that underflows to 0 is -inf.
        yes = teacher.sigmoid() * (functional.logsigmoid(teacher) - functional.logsigmoid(student))
        no = (-teacher).sigmoid() * (functional.logsigmoid(-teacher) - functional.logsigmoid(-student))
        return features.temperature**2 * mean((yes + no).sum(1, keepdim=True), features.weights_SHW)


class DecoupledKL(Distance):
    """T^2 (alpha KL of target against rest + beta KL among the rest), averaged over the candidates with a label.

    The target is the candidate's label; if the source gives no labels, the teacher's likeliest class. A candidate whose
    label is -1 counts nowhere. DKD, arXiv:2203.08679, eqs. 5-7.
    """

    def __init__(self, context: BuildContext, alpha: float, beta: float, temperature: float) -> None:
        super().__init__(context)
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        student_SKHW, teacher_SKHW = (x / self.temperature for x in (features.student_SCHW, features.teacher_SCHW))
        labels_SHW = teacher_SKHW.argmax(1) if features.labels_SHW is None else features.labels_SHW
        classes_K11 = torch.arange(student_SKHW.shape[1], device=student_SKHW.device)[:, None, None]
        is_target_SKHW = labels_SHW[:, None] == classes_K11
        target_s, rest_s, among_s = self._parts(student_SKHW, is_target_SKHW)
        target_t, rest_t, among_t = self._parts(teacher_SKHW, is_target_SKHW)
        against_rest = target_t.exp() * (target_t - target_s) + rest_t.exp() * (rest_t - rest_s)
        among_rest = (among_t.exp() * (among_t - among_s)).sum(1, keepdim=True)
        # Divergences are never negative: clamping removes rounding alone.
        divergence = self.alpha * against_rest.clamp_min(0) + self.beta * among_rest.clamp_min(0)
        weights_SHW = is_target_SKHW.any(1).to(student_SKHW.dtype)
        if features.weights_SHW is not None:
            weights_SHW = weights_SHW * features.weights_SHW
        return self.temperature**2 * mean(divergence, weights_SHW)

    @staticmethod
    def _parts(logits_SKHW: Tensor, is_target_SKHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities: of the target (S, 1, H, W), of the rest (S, 1, H, W), of each class among the rest."""
        others_SKHW = logits_SKHW.masked_fill(is_target_SKHW, _NO_LOGIT)
        target_SKHW = logits_SKHW.masked_fill(~is_target_SKHW, _NO_LOGIT)
        two_S2HW = torch.stack([target_SKHW.logsumexp(1), others_SKHW.logsumexp(1)], dim=1).log_softmax(1)
        return two_S2HW[:, :1], two_S2HW[:, 1:], others_SKHW.log_softmax(1)
