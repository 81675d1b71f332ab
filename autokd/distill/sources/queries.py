"""Sources of heads on queries, whose rows have no place of their own: matched one to one, or asked for the same boxes.

Legend: B images, Q queries, A candidates of the student, P pairs of an image, K classes, L decoder layers, E bins of an
edge's distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autokd.detector_outputs import DetectorOutputs
from autokd.distill.candidates import candidate_pair, top_scores
from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.regions import Given
from autokd.distill.operators import BuildContext, Source
from autokd.distill.query_matching import match_queries
from autokd.distill.term_inputs import TermInputs
from autokd.errors import DistillError
from autokd.spec.operator import BOXES, LOGITS

_LEAST_SCORE = 1e-30


class MatchedPredictions(Source):
    """Base of the sources that compare each of the teacher's predictions with the student's that is matched to it.

    The matching is one to one, by the least sum of costs (``match_queries``), and found once a step. Each pair counts
    by the teacher's top class probability, so that queries of the background weigh little. DETRDistill,
    arXiv:2211.10156, section 3.1, matches so, with the teacher's predictions in the place of the ground truth.
    """

    def pairs(self, inputs: TermInputs) -> tuple[Tensor, Tensor]:
        """Return the indices of the student's and of the teacher's predictions, both (B, P)."""
        return inputs.shared("matched queries", lambda: self._match(inputs))

    def rows(self, inputs: TermInputs, student_BA: Tensor, teacher_BQ: Tensor) -> tuple[Tensor, Tensor]:
        """Return the matched rows, (B, P, ...) both."""
        of_student, of_teacher = self.pairs(inputs)
        images_B1 = torch.arange(len(teacher_BQ), device=teacher_BQ.device)[:, None]
        return student_BA[images_B1, of_student], teacher_BQ[images_B1, of_teacher]

    def scores(self, inputs: TermInputs) -> Tensor:
        """Return the teacher's top class probability of each pair, (B, P)."""
        logits_BQK = inputs.teacher_tap("class_logits")
        images_B1 = torch.arange(len(logits_BQK), device=logits_BQK.device)[:, None]
        return _counting_scores(logits_BQK[images_B1, self.pairs(inputs)[1]])

    @staticmethod
    def _match(inputs: TermInputs) -> tuple[Tensor, Tensor]:
        size = inputs.student.input_size_px
        of_student = inputs.student_tap("class_logits"), inputs.student_tap("boxes")
        return match_queries(*of_student, inputs.teacher_tap("class_logits"), inputs.teacher_tap("boxes"), size)


class MatchedLogits(MatchedPredictions):
    """The class logits of matched predictions; layout logits (B, K, 1, P)."""

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        rows = self.rows(inputs, inputs.student_tap("class_logits"), inputs.teacher_tap("class_logits"))
        return (candidate_pair(*rows, LOGITS, Given(self.scores(inputs)[:, None])),)


class MatchedBoxes(MatchedPredictions):
    """The decoded boxes of matched predictions; layout boxes (B, 4, 1, P)."""

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        rows = self.rows(inputs, inputs.student_tap("boxes"), inputs.teacher_tap("boxes"))
        return (candidate_pair(*rows, BOXES, Given(self.scores(inputs)[:, None])),)


class MatchedEdges(MatchedPredictions):
    """The bins of each edge after every decoder layer of the student, and after the teacher's last layer.

    The queries are matched by their last layer, so that layer l of a query learns what the teacher's last layer says:
    D-FINE's localization self-distillation, arXiv:2410.13842, section 4.2, with the teacher in the place of the own
    last layer. Layout logits (B, E, 1, 4 L P): a bin is a class.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        bins = [_bins(outputs, tap) for outputs, tap in _edges_of(context)]
        if len(set(bins)) > 1:
            raise DistillError(
                f"edges have {bins[0]} bins in the student and {bins[1]} in the teacher, which cannot be compared. "
                "Set the student's 'config: {max_num_bins: ...}' to the teacher's, or leave matched_edges out."
            )

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        layers_BQL4E = inputs.student_tap("layer_edge_logits").transpose(1, 2)
        student_BPL4E, teacher_BP4E = self.rows(inputs, layers_BQL4E, inputs.teacher_tap("edge_logits"))
        num_layers = student_BPL4E.shape[2]
        teacher_BPL4E = teacher_BP4E[:, :, None].expand_as(student_BPL4E)
        weights_BX = self.scores(inputs).repeat_interleave(4 * num_layers, dim=1)
        pair = candidate_pair(
            student_BPL4E.flatten(1, 3), teacher_BPL4E.flatten(1, 3), LOGITS, Given(weights_BX[:, None])
        )
        return (pair,)


class SharedLogits(Source):
    """The class logits of shared queries; layout logits (B, K, 1, P).

    Both decoders are asked for the same reference boxes (consistent distillation points). Each counts by the teacher's
    top class probability (foreground rebalance weight). KD-DETR, arXiv:2211.08071, sections 3.3 and 3.4.
    """

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        student_BPK, teacher_BPK = inputs.tap("shared_logits")
        return (candidate_pair(student_BPK, teacher_BPK, LOGITS, Given(_counting_scores(teacher_BPK)[:, None])),)


class SharedBoxes(Source):
    """The decoded boxes of shared queries, weighted as in ``SharedLogits``; layout boxes (B, 4, 1, P)."""

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        weights_B1P = _counting_scores(inputs.tap("shared_logits")[1])[:, None]
        return (candidate_pair(*inputs.tap("shared_boxes"), BOXES, Given(weights_B1P)),)


def _counting_scores(logits_BPK: Tensor) -> Tensor:
    """Return the top class probabilities, above 0 also where float32 rounds them to it.

    Steps take statistics over the rows of positive weight, which must not depend on rounding.
    """
    return top_scores(logits_BPK).clamp_min(_LEAST_SCORE)


def _edges_of(context: BuildContext) -> list[tuple[DetectorOutputs, str]]:
    sides = ((context.student, "layer_edge_logits"), (context.teacher, "edge_logits"))
    return [(outputs, tap) for outputs, tap in sides if outputs is not None]


def _bins(outputs: DetectorOutputs, tap: str) -> int:
    value = getattr(outputs, tap)
    return int(value.shape[-1]) if isinstance(value, Tensor) else 0
