"""Global prototypes: a bank of the instances of an epoch, and the few that represent each class and level in the next.

Distilling Object Detectors with Global Knowledge (ECCV 2022), arXiv:2210.09022, section 3.

Legend: S instances of a batch, C channels (of either side), K classes, N places of a class, P prototypes of all
classes and levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autokd.distill.operators import Memory
from autokd.distill.prototype_selection import select_prototypes
from autokd.distill.statistics import unit

INSTANCES_OF_A_CLASS = 800
"""Number of a class's last instances that are kept in an epoch (section 4.1)."""


@dataclass(frozen=True, eq=False)
class InstanceVectors:
    """The ground-truth instances of a batch: raw vectors of both sides, class, level, and False for padding."""

    student_SC: Tensor
    teacher_SC: Tensor
    labels_S: Tensor
    levels_S: Tensor
    present_S: Tensor


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Raw vectors of both sides, and the class and level that each represents."""

    student_PC: Tensor
    teacher_PC: Tensor
    labels_P: Tensor
    levels_P: Tensor


class PrototypeBank(Memory):
    """Collects instances during an epoch; when the next begins, chooses prototypes by coupled matching pursuit.

    Until the first choice the instances of the batch itself serve as prototypes. Instances are buffers and prototypes
    extra state, so that a restored training goes on with the same.
    """

    student_XC: Tensor
    teacher_XC: Tensor
    levels_X: Tensor
    num_seen_K: Tensor

    def __init__(self, student_channels: int, teacher_channels: int, num_classes: int, num_prototypes: int) -> None:
        super().__init__()
        self.num_classes, self.num_prototypes = num_classes, num_prototypes
        # The last place receives the rows that are not kept: the number of rows written is then the same in each step,
        # and no step waits for the device to count them.
        places = num_classes * INSTANCES_OF_A_CLASS + 1
        self.register_buffer("student_XC", torch.zeros(places, student_channels))
        self.register_buffer("teacher_XC", torch.zeros(places, teacher_channels))
        self.register_buffer("levels_X", torch.zeros(places, dtype=torch.int64))
        self.register_buffer("num_seen_K", torch.zeros(num_classes, dtype=torch.int64))
        self.chosen: Prototypes | None = None
        """The prototypes of this epoch; None before the first choice."""

    @torch.no_grad()
    def add(self, found: InstanceVectors, is_kept_S: Tensor) -> None:
        """Store instances in place of the oldest of their class.

        Args:
            found: the instances of a batch.
            is_kept_S: False for those that are too small to keep.
        """
        keeps_S = is_kept_S & found.present_S & (found.labels_S >= 0)
        classes_S = found.labels_S.clamp(0, self.num_classes - 1)
        is_of_SK = torch.nn.functional.one_hot(classes_S, self.num_classes) * keeps_S[:, None]
        order_S = (is_of_SK.cumsum(0) - 1).gather(1, classes_S[:, None])[:, 0]
        number_S = self.num_seen_K[classes_S] + order_S
        # More of a class in one batch than it has places: two rows for one place would leave open which one wins.
        keeps_S = keeps_S & (order_S < INSTANCES_OF_A_CLASS)
        place_S = classes_S * INSTANCES_OF_A_CLASS + number_S % INSTANCES_OF_A_CLASS
        place_S = torch.where(keeps_S, place_S, len(self.levels_X) - 1)
        self.student_XC.index_copy_(0, place_S, found.student_SC.detach().to(self.student_XC))
        self.teacher_XC.index_copy_(0, place_S, found.teacher_SC.detach().to(self.teacher_XC))
        self.levels_X.index_copy_(0, place_S, found.levels_S)
        self.num_seen_K += is_of_SK.sum(0)

    @torch.no_grad()
    def begin_epoch(self, epoch: int) -> None:
        """Choose prototypes of each class and level among the last epoch's instances; start collecting anew."""
        rows: list[Tensor] = []
        for label, seen in enumerate(self.num_seen_K.tolist()):
            first = label * INSTANCES_OF_A_CLASS
            filled = torch.arange(first, first + min(seen, INSTANCES_OF_A_CLASS), device=self.levels_X.device)
            for level in self.levels_X[filled].unique().tolist():
                rows.append(self._choose(filled[self.levels_X[filled] == level]))
        if rows:
            chosen = torch.cat(rows)
            labels_P = chosen // INSTANCES_OF_A_CLASS
            self.chosen = Prototypes(self.student_XC[chosen], self.teacher_XC[chosen], labels_P, self.levels_X[chosen])
        self.num_seen_K.zero_()

    def _choose(self, rows: Tensor) -> Tensor:
        student, teacher = self.student_XC[rows], self.teacher_XC[rows]
        is_sound = (student.isfinite() & student.any(1, keepdim=True)).all(1)
        is_sound &= (teacher.isfinite() & teacher.any(1, keepdim=True)).all(1)
        rows, student, teacher = rows[is_sound], student[is_sound], teacher[is_sound]
        if not len(rows):
            return rows
        picks = select_prototypes(student, teacher, num_prototypes=min(self.num_prototypes, len(rows)))
        return rows[picks.to(rows.device)]

    def prototypes(self, found: InstanceVectors) -> Prototypes:
        """Return the prototypes chosen when the epoch began, or the batch's own instances before the first choice."""
        if self.chosen is not None:
            return self.chosen
        is_present = found.present_S
        return Prototypes(
            found.student_SC.detach()[is_present],
            found.teacher_SC.detach()[is_present],
            found.labels_S[is_present],
            found.levels_S[is_present],
        )

    def reliability(self, found: InstanceVectors) -> Tensor:
        """Return the reliability of each instance, (S,), detached.

        r = 1 - |q_S - q_T|, where q is the greatest cosine of an instance to a prototype of its class and level, in the
        space of the student or of the teacher; 1 if there is no such prototype. Section 3.2, eqs. 6 and 7.
        """
        kept = self.prototypes(found)
        fits_SP = (found.labels_S[:, None] == kept.labels_P) & (found.levels_S[:, None] == kept.levels_P)
        if fits_SP.shape[1] == 0:
            return torch.ones_like(found.student_SC[:, 0]).detach()
        nearest_S = [
            cosines(side_SC.detach(), side_PC).masked_fill(~fits_SP, -2.0).amax(1)  # below any cosine
            for side_SC, side_PC in ((found.student_SC, kept.student_PC), (found.teacher_SC, kept.teacher_PC))
        ]
        return torch.where(fits_SP.any(1), 1.0 - (nearest_S[0] - nearest_S[1]).abs(), 1.0)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the chosen prototypes, whose number changes with every choice, so that they cannot be buffers."""
        chosen = self.chosen
        return {} if chosen is None else {name: getattr(chosen, name) for name in chosen.__dataclass_fields__}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore chosen prototypes; without any, the batch's own instances serve."""
        device = self.levels_X.device
        self.chosen = Prototypes(**{name: value.to(device) for name, value in state.items()}) if state else None


def cosines(vectors_SC: Tensor, prototypes_PC: Tensor) -> Tensor:
    """Return the cosine of each vector to each prototype, (S, P)."""
    return unit(vectors_SC, (1,)) @ unit(prototypes_PC.to(vectors_SC), (1,)).T
