"""The prototypes of each level, and what they say of a batch: shared by the sources with prototypes.

The instances of a level are those whose size belongs to it, or all of them (``every_level``), as in the released code
of Distilling Object Detectors with Global Knowledge (ECCV 2022), arXiv:2210.09022. A level's prototypes are chosen
among its instances.

Legend: S instances of a batch, C channels, L paired levels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from autokd.distill.geometry.levels import LevelPair
from autokd.distill.operators import BuildContext
from autokd.distill.prototype_bank import InstanceVectors, PrototypeBank, Prototypes
from autokd.distill.region_sets import (
    common_channels,
    own_levels,
    region_levels,
    region_vectors,
    regions_of,
    truth_means,
)
from autokd.distill.term_inputs import TermInputs
from autokd.errors import DistillError

_SMALLEST_PX, _OF_PX = 30, 1333
"""Instances with a side below 30 px of an input whose longer side is 1333 px are not remembered (section 4.1)."""


class LevelPrototypes(ABC):
    """Instances of a batch and prototypes, in ``num_sets`` sets.

    Sources register ``memory`` as their own submodule and hand it back: a copy of a source has a copy of it.
    """

    memory: nn.Module
    num_sets: int

    @abstractmethod
    def instances(self, inputs: TermInputs, memory: nn.Module, level: int) -> InstanceVectors:
        """Return the ground truth of the batch in the set of a paired level; in training a bank stores it, once."""

    @abstractmethod
    def bank(self, memory: nn.Module, level: int) -> PrototypeBank:
        """Return the bank of a paired level."""

    @abstractmethod
    def own_reliability(self, inputs: TermInputs, memory: nn.Module) -> Tensor:
        """Return the reliability of the batch's ground truth, each on the level of its size, (S,)."""

    def instances_and_prototypes(
        self, inputs: TermInputs, memory: nn.Module, level: int
    ) -> tuple[InstanceVectors, Prototypes]:
        """Return the batch's instances and the prototypes of a paired level."""
        found = self.instances(inputs, memory, level)
        return found, self.bank(memory, level).prototypes(found)

    def reliability(self, inputs: TermInputs, memory: nn.Module, level: int) -> Tensor:
        """Return the reliability of the batch's ground truth by the prototypes of a paired level, (S,)."""
        bank = self.bank(memory, level)
        return inputs.shared(("reliability", bank), lambda: bank.reliability(self.instances(inputs, memory, level)))


class _OwnLevel(LevelPrototypes):
    """One set for all levels: an instance belongs to the level of its size, by each side's own strides."""

    num_sets = 1

    def __init__(self, context: BuildContext, num_prototypes: int, source: str) -> None:
        widths = (
            common_channels(context.student, "student", source),
            common_channels(context.teacher, "teacher", source),
        )
        assert context.student is not None
        assert context.teacher is not None
        self._strides = dict(context.student.strides), dict(context.teacher.strides)
        num_classes = context.num_classes
        self.memory = context.part(
            f"prototypes {num_prototypes}", lambda: PrototypeBank(widths[0], widths[1], num_classes, num_prototypes)
        )

    def bank(self, memory: nn.Module, level: int) -> PrototypeBank:
        return cast(PrototypeBank, memory)

    def instances(self, inputs: TermInputs, memory: nn.Module, level: int) -> InstanceVectors:
        return inputs.shared(
            ("prototype instances", memory), lambda: self._instances(inputs, cast(PrototypeBank, memory))
        )

    def own_reliability(self, inputs: TermInputs, memory: nn.Module) -> Tensor:
        return self.reliability(inputs, memory, 0)

    def _instances(self, inputs: TermInputs, bank: PrototypeBank) -> InstanceVectors:
        regions = regions_of(inputs)
        boxes_S4 = regions.instances.boxes_S4
        vectors, levels = [], []
        sides = (("student", inputs.student_maps), ("teacher", inputs.teacher_maps))
        for (side, maps), strides in zip(sides, self._strides):
            vectors.append(regions.truth(region_vectors(inputs, maps, strides, side)))
            levels.append(regions.truth(region_levels(boxes_S4, strides).argmax(1)))
        present_S, labels_S = (regions.truth(x) for x in (regions.instances.present_S, regions.instances.labels_S))
        found = InstanceVectors(vectors[0], vectors[1], labels_S, levels[1], present_S)
        _remember(inputs, bank, found)
        return found


class _EveryLevel(LevelPrototypes):
    """A set for each paired level, with all instances: the mean of each box on that level, and a bank of its own."""

    def __init__(self, context: BuildContext, num_prototypes: int, source: str) -> None:
        if not context.pairs:
            raise DistillError(
                f"source '{source}' with every_level: 1 needs a stride that both pyramids have, but they share none. "
                "Use every_level: 0, or detectors whose pyramids share a stride."
            )
        self._pairs = context.pairs
        self.num_sets = len(context.pairs)
        num_classes = context.num_classes
        self.memory = context.part(
            f"prototypes {num_prototypes} of every level",
            lambda: nn.ModuleList(
                PrototypeBank(pair.student_channels, pair.teacher_channels, num_classes, num_prototypes)
                for pair in context.pairs
            ),
        )

    def bank(self, memory: nn.Module, level: int) -> PrototypeBank:
        return cast(PrototypeBank, cast(nn.ModuleList, memory)[level])

    def instances(self, inputs: TermInputs, memory: nn.Module, level: int) -> InstanceVectors:
        bank = self.bank(memory, level)
        return inputs.shared(("prototype instances", bank), lambda: self._instances(inputs, bank, self._pairs[level]))

    def own_reliability(self, inputs: TermInputs, memory: nn.Module) -> Tensor:
        of_levels_LS = torch.stack([self.reliability(inputs, memory, level) for level in range(self.num_sets)])
        return of_levels_LS.gather(0, own_levels(inputs).flatten()[None])[0]

    def _instances(self, inputs: TermInputs, bank: PrototypeBank, pair: LevelPair) -> InstanceVectors:
        truth = inputs.instances
        found = InstanceVectors(
            truth_means(inputs, inputs.student_maps[pair.student], pair.stride),
            truth_means(inputs, inputs.teacher_maps[pair.teacher], pair.stride),
            truth.labels_S,
            torch.zeros_like(truth.labels_S),  # a bank of one level needs no number for it
            truth.present_S,
        )
        _remember(inputs, bank, found)
        return found


def prototypes_of_levels(context: BuildContext, num_prototypes: int, source: str, every_level: bool) -> LevelPrototypes:
    """Return the prototypes that all sources of one distiller with these settings share.

    Args:
        context: the pair of detectors.
        num_prototypes: of each class and level.
        source: the source that asks, for errors.
        every_level: whether each level has all instances, in place of those whose size belongs to it.

    Raises:
        DistillError: if a side's levels differ in channels, or with ``every_level`` the pair shares no level.
    """
    return (_EveryLevel if every_level else _OwnLevel)(context, num_prototypes, source)


def _remember(inputs: TermInputs, bank: PrototypeBank, found: InstanceVectors) -> None:
    """In training, store the instances that are large enough."""
    if inputs.is_training:
        boxes_S4 = inputs.instances.boxes_S4
        smallest_px = _SMALLEST_PX * max(inputs.student.input_size_px) / _OF_PX
        bank.add(found, (boxes_S4[:, 2:] - boxes_S4[:, :2] >= smallest_px).all(1))
