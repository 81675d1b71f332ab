"""Sources with global prototypes: reliable foreground and logits, alignment to prototypes.

Distilling Object Detectors with Global Knowledge (ECCV 2022), arXiv:2210.09022, section 3.3.

Legend: B images, M boxes of an image, S = B * M instances, P prototypes, H x W cells.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autokd.distill.candidates import candidate_pair, positives, require_equal_candidates
from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.regions import Boxes, Given, Region, covering
from autokd.distill.level_prototypes import prototypes_of_levels
from autokd.distill.operators import BuildContext, Source
from autokd.distill.prototype_bank import InstanceVectors, Prototypes, cosines
from autokd.distill.region_sets import boxes_at_own_level
from autokd.distill.sources.maps import FeatureMap
from autokd.distill.term_inputs import TermInputs
from autokd.spec.operator import LOGITS, SCALAR_MAP


class ReliableForeground(FeatureMap):
    """The cells inside ground-truth boxes, on every paired level, each weighted by the reliability of its instance.

    r = 1 - |q_S - q_T|, q the greatest cosine of an instance's vector to a prototype of its class and level, in the
    own space. In overlapping boxes the most reliable instance counts. Section 3.3, eq. 8. With ``own_level`` a box
    covers cells of the level of its size alone, and with ``every_level`` its reliability is that on the level of the
    cells, as in the released code.
    """

    def __init__(self, context: BuildContext, prototypes: int, own_level: int, every_level: int) -> None:
        super().__init__(context)
        self.own_level = bool(own_level)
        self._shared = prototypes_of_levels(context, prototypes, "reliable_foreground", bool(every_level))
        self.bank = self._shared.memory

    def region(self, inputs: TermInputs, level: int) -> Region:
        boxes = boxes_at_own_level(inputs, level) if self.own_level else inputs.boxes
        reliability_BM = self._shared.reliability(inputs, self.bank, level).view(inputs.boxes.present_BM.shape)
        return _Reliable(boxes, inputs.pairs[level].stride, reliability_BM)


class ReliableLogits(Source):
    """The class logits of positive candidates, weighted by the reliability of their object.

    Candidates as of ``positive_logits``, reliability as of ``reliable_foreground``, on the level of the object's size.
    Layout logits. Section 3.3 (soft labels).
    """

    def __init__(self, context: BuildContext, prototypes: int, every_level: int) -> None:
        super().__init__(context)
        require_equal_candidates(context, "class_logits", "boxes")
        self._shared = prototypes_of_levels(context, prototypes, "reliable_logits", bool(every_level))
        self.bank = self._shared.memory

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        chosen = positives(inputs)
        student_BPK, teacher_BPK = (chosen.of(x_BAK) for x_BAK in inputs.tap("class_logits"))
        reliability_BM = self._shared.own_reliability(inputs, self.bank).view(inputs.boxes.present_BM.shape)
        weights_BP = chosen.present_BP.to(teacher_BPK.dtype)
        if reliability_BM.shape[1]:
            weights_BP = weights_BP * reliability_BM.gather(1, chosen.boxes_BP).clamp_min(0.0)
        region = Given(weights_BP[:, None])
        labels_B1P = chosen.labels_BP[:, None]
        return (candidate_pair(student_BPK, teacher_BPK, LOGITS, region, labels_SHW=labels_B1P),)


class _Reliable(Region):
    """Cells inside boxes, weighted by the most reliable of those that cover them."""

    is_graded = True

    def __init__(self, boxes: Boxes, stride: float, reliability_BM: Tensor) -> None:
        super().__init__()
        self._boxes, self._stride, self._reliability_BM = boxes, stride, reliability_BM

    def make_SHW(self, grid: Grid) -> Tensor:
        rows_BPMH, columns_BPMW = covering(self._boxes, self._stride, grid)
        covered = rows_BPMH[..., None] & columns_BPMW[..., None, :]
        if covered.shape[2] == 0:
            return torch.zeros_like(covered.any(2), dtype=torch.float32).flatten(0, 1)
        weights = covered * self._reliability_BM.to(torch.float32).clamp_min(0.0)[:, None, :, None, None]
        return weights.amax(2).flatten(0, 1)


class PrototypeAlignment(Source):
    """r * cos(x, p) of every instance x to every prototype p of its level, in the own space of each side.

    An instance is a sample, a prototype a cell; prototypes of all classes count. Section 3.3, eq. 9. With
    ``every_level`` there is a feature pair for each paired level, of all instances and all prototypes of that level,
    as in the released code.
    """

    def __init__(self, context: BuildContext, prototypes: int, every_level: int) -> None:
        super().__init__(context)
        self._shared = prototypes_of_levels(context, prototypes, "prototypes", bool(every_level))
        self.bank = self._shared.memory

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        return tuple(
            _aligned(
                *self._shared.instances_and_prototypes(inputs, self.bank, level),
                self._shared.reliability(inputs, self.bank, level)[:, None],
                level,
            )
            for level in range(self._shared.num_sets)
        )


def _aligned(found: InstanceVectors, kept: Prototypes, reliability_S1: Tensor, level: int) -> FeaturePair:
    student_SP = reliability_S1 * cosines(found.student_SC, kept.student_PC)
    teacher_SP = reliability_S1 * cosines(found.teacher_SC, kept.teacher_PC)
    counts_SP = found.present_S[:, None] & (found.levels_S[:, None] == kept.levels_P)
    if student_SP.shape[1] == 0:  # no prototype yet: one of weight 0, as later steps need a map with a cell
        student_SP, teacher_SP, counts_SP = (functional.pad(x, (0, 1)) for x in (student_SP, teacher_SP, counts_SP))
    return FeaturePair(
        student_SP[:, None, None],
        teacher_SP.detach()[:, None, None],
        Grid(1, student_SP.shape[1]),
        Given(counts_SP.to(student_SP.dtype)[:, None]),
        SCALAR_MAP,
        level=level,
    )
