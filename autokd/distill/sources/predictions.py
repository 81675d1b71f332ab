"""Sources that compare what the two detectors predict, candidate box by candidate box.

Whether both have the same candidates is checked when the distiller is built.

Legend: B images, A candidate boxes of an image, P positive ones, K classes, E bins of an edge's distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.distill.candidates import (
    Positives,
    candidate_levels,
    candidate_pair,
    positives,
    require_equal_candidates,
    top_scores,
)
from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.regions import Given
from autokd.distill.operators import BuildContext, Source
from autokd.distill.term_inputs import TermInputs
from autokd.distill.weighting.disparity import disparity_weights
from autokd.spec.operator import BOXES, LOGITS

_SOFTENING = 0.1
"""Probability that softened ground truth leaves to the other classes."""


class ClassLogits(Source):
    """The class logits of every candidate, with equal weights; one feature pair for all levels.

    Layout logits. The candidates have no labels. Hinton et al., arXiv:1503.02531.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        require_equal_candidates(context, "class_logits")

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        student_BAK, teacher_BAK = inputs.tap("class_logits")
        return (candidate_pair(student_BAK, teacher_BAK, LOGITS),)


class PositiveLogits(Source):
    """The class logits of positive candidates, labeled with the class of their object.

    A candidate is positive if the box that the *teacher* decodes for it overlaps a ground-truth box with an IoU of at
    least 0.5: that does not depend on either detector's own assignment, and is the same for every student.
    Layout logits. LD, arXiv:2102.12252, section 3.3 (its classification distillation on the main region). With
    ``by_level`` there is a feature pair for each level of the pyramid: a mean is then over the positives of a level, as
    released dense heads take it. With ``region_weights`` the positives of a feature pair count by the disparity of
    their logits. With ``calibrated`` the teacher's logits give way to softened ground truth where it gives the object's
    class a lower probability, after FerKD, arXiv:2312.17473, which does so for crops that its teacher is unsure of.
    """

    def __init__(self, context: BuildContext, by_level: int, region_weights: int, calibrated: float) -> None:
        super().__init__(context)
        require_equal_candidates(context, "class_logits", "boxes")
        self.by_level, self.region_weights, self.calibrated = bool(by_level), region_weights, calibrated

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        chosen = positives(inputs)
        student_BPK, teacher_BPK = (chosen.of(x_BAK) for x_BAK in inputs.tap("class_logits"))
        if self.calibrated:
            teacher_BPK = calibrated(teacher_BPK, chosen.labels_BP, self.calibrated)
        labels_B1P = chosen.labels_BP[:, None]
        weights = (self._weights(student_BPK, teacher_BPK, counts_BP) for counts_BP in self._parts(inputs, chosen))
        return tuple(
            candidate_pair(student_BPK, teacher_BPK, LOGITS, Given(weights_BP[:, None]), labels_SHW=labels_B1P)
            for weights_BP in weights
        )

    def _weights(self, student_BPK: Tensor, teacher_BPK: Tensor, counts_BP: Tensor) -> Tensor:
        if not self.region_weights:
            return counts_BP.to(teacher_BPK.dtype)
        student_SK, teacher_SK = student_BPK.flatten(0, 1), teacher_BPK.flatten(0, 1)
        return disparity_weights(student_SK, teacher_SK, counts_BP.flatten(), self.region_weights).view_as(counts_BP)

    def _parts(self, inputs: TermInputs, chosen: Positives) -> list[Tensor]:
        """Return which positives count in each feature pair, (B, P)."""
        if not self.by_level:
            return [chosen.present_BP]
        levels_BP = candidate_levels(inputs)[chosen.index_BP]
        return [chosen.present_BP & (levels_BP == level) for level in range(len(inputs.student.pyramid))]


def calibrated(teacher_BPK: Tensor, labels_BP: Tensor, least: float) -> Tensor:
    """Return the teacher's logits, with softened ground truth in place of those that miss the object's class.

    Args:
        teacher_BPK: class logits.
        labels_BP: class of the object; -1: none, whose logits stay.
        least: probability (sigmoid) of the object's class from which on the teacher's logits stay.

    Returns:
        (B, P, K). Softened ground truth: log-odds of 0.9 for the object's class, of 0.1 / (K - 1) for each other one.
    """
    num_classes = teacher_BPK.shape[2]
    is_class_BPK = torch.arange(num_classes, device=labels_BP.device) == labels_BP[..., None]
    certainty_BP = (teacher_BPK.sigmoid() * is_class_BPK).sum(2)
    shares = teacher_BPK.new_tensor([_SOFTENING / max(num_classes - 1, 1), 1 - _SOFTENING]).logit()
    softened_BPK = torch.where(is_class_BPK, shares[1], shares[0])
    is_unsure_BP1 = ((labels_BP >= 0) & (certainty_BP < least))[..., None]
    return torch.where(is_unsure_BP1, softened_BPK, teacher_BPK)


class Localization(Source):
    """The decoded boxes of every candidate, weighted by the teacher's top class probability (sigmoid).

    Layout boxes. BCKD, arXiv:2308.14286, section 3.3; CrossKD, arXiv:2306.11369, section 3.3.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        require_equal_candidates(context, "boxes", "class_logits")

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        scores_B1A = top_scores(inputs.tap("class_logits")[1])[:, None]
        return (candidate_pair(*inputs.tap("boxes"), BOXES, Given(scores_B1A)),)


class LocalizationDistribution(Source):
    """The bins of each edge of the positive candidates, weighted by the teacher's top class probability (sigmoid).

    Layout logits (B, E, 1, 4 P): a bin is a class, and each edge (left, top, right, bottom) is a cell of its own.
    Positive as in ``PositiveLogits``. LD, arXiv:2102.12252, eqs. 3-5.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        require_equal_candidates(context, "edge_logits", "boxes", "class_logits")

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        chosen = positives(inputs)
        student_BXE, teacher_BXE = (chosen.of(x_BA4E).flatten(1, 2) for x_BA4E in inputs.tap("edge_logits"))
        scores_BP = top_scores(chosen.of(inputs.tap("class_logits")[1])) * chosen.present_BP
        region = Given(scores_BP.repeat_interleave(4, dim=1)[:, None])
        return (candidate_pair(student_BXE, teacher_BXE, LOGITS, region),)
