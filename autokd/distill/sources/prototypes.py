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
from autokd.distill.operators import BuildContext, Source
from autokd.distill.prototype_bank import InstanceVectors, PrototypeBank, cosines
from autokd.distill.region_sets import common_channels, region_levels, region_vectors, regions_of
from autokd.distill.sources.maps import FeatureMap
from autokd.distill.term_inputs import TermInputs
from autokd.spec.operator import LOGITS, SCALAR_MAP

_SMALLEST_PX, _OF_PX = 30, 1333
"""Instances with a side below 30 px of an input whose longer side is 1333 px are not remembered (section 4.1)."""


class _WithPrototypes:
    """The bank of a distiller and the instances of a batch, shared by the sources of this module."""

    def __init__(self, context: BuildContext, num_prototypes: int, source: str) -> None:
        widths = (
            common_channels(context.student, "student", source),
            common_channels(context.teacher, "teacher", source),
        )
        assert context.student is not None
        assert context.teacher is not None
        self._strides = dict(context.student.strides), dict(context.teacher.strides)
        num_classes = context.num_classes
        self.bank = context.part(
            f"prototypes {num_prototypes}", lambda: PrototypeBank(widths[0], widths[1], num_classes, num_prototypes)
        )

    def instances(self, inputs: TermInputs, bank: PrototypeBank) -> InstanceVectors:
        """Return the ground truth of the batch; in training the bank stores it, once in a step."""
        return inputs.shared(("prototype instances", bank), lambda: self._instances(inputs, bank))

    def reliability(self, inputs: TermInputs, bank: PrototypeBank) -> Tensor:
        """Return the reliability of the batch's ground truth, (S,), computed once in a step."""
        return inputs.shared(("reliability", bank), lambda: bank.reliability(self.instances(inputs, bank)))

    def _instances(self, inputs: TermInputs, bank: PrototypeBank) -> InstanceVectors:
        regions = regions_of(inputs)
        boxes_S4 = regions.instances.boxes_S4
        vectors, levels = [], []
        sides = (("student", inputs.student_maps), ("teacher", inputs.teacher_maps))
        for (side, maps), strides in zip(sides, self._strides):
            vectors.append(regions.truth(region_vectors(inputs, maps, strides, side)))
            levels.append(regions.truth(region_levels(boxes_S4, strides).argmax(1)))
        there_S, labels_S = (regions.truth(x) for x in (regions.instances.there_S, regions.instances.labels_S))
        found = InstanceVectors(vectors[0], vectors[1], labels_S, levels[1], there_S)
        if inputs.is_training:
            sides_S2 = regions.truth(boxes_S4[:, 2:] - boxes_S4[:, :2])
            smallest_px = _SMALLEST_PX * max(inputs.student.input_size_px) / _OF_PX
            bank.add(found, (sides_S2 >= smallest_px).all(1))
        return found


class ReliableForeground(FeatureMap):
    """The cells inside ground-truth boxes, on every paired level, each weighted by the reliability of its instance.

    r = 1 - |q_S - q_T|, q the greatest cosine of an instance's vector to a prototype of its class and level, in the
    own space. In overlapping boxes the most reliable instance counts. Section 3.3, eq. 8.
    """

    def __init__(self, context: BuildContext, prototypes: int) -> None:
        super().__init__(context)
        self._shared = _WithPrototypes(context, prototypes, "reliable_foreground")
        self.bank = self._shared.bank

    def region(self, inputs: TermInputs, level: int) -> Region:
        reliability_BM = self._shared.reliability(inputs, self.bank).view(inputs.boxes.there_BM.shape)
        return _Reliable(inputs.boxes, inputs.pairs[level].stride, reliability_BM)


class ReliableLogits(Source):
    """The class logits of positive candidates, weighted by the reliability of their object.

    Candidates as of ``positive_logits``, reliability as of ``reliable_foreground``. Layout logits. Section 3.3 (soft
    labels).
    """

    def __init__(self, context: BuildContext, prototypes: int) -> None:
        super().__init__(context)
        require_equal_candidates(context, "class_logits", "boxes")
        self._shared = _WithPrototypes(context, prototypes, "reliable_logits")
        self.bank = self._shared.bank

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        chosen = positives(inputs)
        student_BPK, teacher_BPK = (chosen.of(x_BAK) for x_BAK in inputs.tap("class_logits"))
        reliability_BM = self._shared.reliability(inputs, self.bank).view(inputs.boxes.there_BM.shape)
        weights_BP = chosen.there_BP.to(teacher_BPK.dtype)
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

    An instance is a sample, a prototype a cell; prototypes of all classes count. Section 3.3, eq. 9.
    """

    def __init__(self, context: BuildContext, prototypes: int) -> None:
        super().__init__(context)
        self._shared = _WithPrototypes(context, prototypes, "prototypes")
        self.bank = self._shared.bank

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        found = self._shared.instances(inputs, self.bank)
        kept = self.bank.prototypes(found)
        reliability_S1 = self._shared.reliability(inputs, self.bank)[:, None]
        student_SP = reliability_S1 * cosines(found.student_SC, kept.student_PC)
        teacher_SP = reliability_S1 * cosines(found.teacher_SC, kept.teacher_PC)
        counts_SP = found.there_S[:, None] & (found.levels_S[:, None] == kept.levels_P)
        if student_SP.shape[1] == 0:  # no prototype yet: one of weight 0, as later steps need a map with a cell
            student_SP, teacher_SP, counts_SP = (functional.pad(x, (0, 1)) for x in (student_SP, teacher_SP, counts_SP))
        return (
            FeaturePair(
                student_SP[:, None, None],
                teacher_SP.detach()[:, None, None],
                Grid(1, student_SP.shape[1]),
                Given(counts_SP.to(student_SP.dtype)[:, None]),
                SCALAR_MAP,
            ),
        )
