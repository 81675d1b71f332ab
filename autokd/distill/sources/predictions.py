"""Sources that compare what the two detectors predict, candidate box by candidate box.

Whether both have the same candidates is checked when the distiller is built.

Legend: B images, A candidate boxes of an image, P positive ones, K classes, E bins of an edge's distribution.
"""

from __future__ import annotations

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
from autokd.spec.operator import BOXES, LOGITS


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
    released dense heads take it.
    """

    def __init__(self, context: BuildContext, by_level: int) -> None:
        super().__init__(context)
        require_equal_candidates(context, "class_logits", "boxes")
        self.by_level = bool(by_level)

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        chosen = positives(inputs)
        student_BPK, teacher_BPK = (chosen.of(x_BAK) for x_BAK in inputs.tap("class_logits"))
        labels_B1P = chosen.labels_BP[:, None]
        return tuple(
            candidate_pair(
                student_BPK, teacher_BPK, LOGITS, Given(counts_BP.to(teacher_BPK.dtype)[:, None]), labels_SHW=labels_B1P
            )
            for counts_BP in self._parts(inputs, chosen)
        )

    def _parts(self, inputs: TermInputs, chosen: Positives) -> list[Tensor]:
        """Return which positives count in each feature pair, (B, P)."""
        if not self.by_level:
            return [chosen.present_BP]
        levels_BP = candidate_levels(inputs)[chosen.index_BP]
        return [chosen.present_BP & (levels_BP == level) for level in range(len(inputs.student.pyramid))]


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
