"""Linear CKA: how alike student and teacher represent the same images, from 0 to 1.

Rows are the cells of a pyramid level, or instances. Auto-KD (ICCV 2023) calls 1 - CKA the representation gap.

Legend: B images, C channels, H x W cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torchvision.ops import roi_align

from autokd.data import Target
from autokd.detector_outputs import DetectorOutputs
from autokd.distill.geometry.levels import cropped_alike, pair_levels
from autokd.distill.linear_cka import LinearCKA

Rows = Literal["cells", "instances"]


class PyramidCKA:
    """CKA of each pyramid level that student and teacher share, and its mean over levels."""

    def __init__(self, rows: Rows = "cells") -> None:
        self._rows = rows
        self._levels: dict[str, LinearCKA] = {}

    def add(self, student: DetectorOutputs, teacher: DetectorOutputs, targets: Sequence[Target]) -> None:
        """Add one batch. Levels are paired by stride, as distillers pair them.

        Raises:
            DistillError: if no level has a common stride.
        """
        for pair in pair_levels(student, teacher):
            student_BCHW, teacher_BCHW = cropped_alike(
                student.pyramid[pair.student].detach().float(), teacher.pyramid[pair.teacher].detach().float(), pair
            )
            self._levels.setdefault(pair.student, LinearCKA()).add(
                self._as_rows(student_BCHW, pair.stride, targets), self._as_rows(teacher_BCHW, pair.stride, targets)
            )

    def _as_rows(self, map_BCHW: Tensor, stride: int, targets: Sequence[Target]) -> Tensor:
        if self._rows == "cells":
            return map_BCHW.permute(0, 2, 3, 1).flatten(0, 2)
        boxes = [target["boxes"].to(map_BCHW) for target in targets]
        return roi_align(map_BCHW, boxes, output_size=1, spatial_scale=1 / stride, aligned=True).flatten(1)

    def levels(self) -> dict[str, float]:
        """Return CKA by level; levels without a row are left out."""
        values = {level: cka.value() for level, cka in self._levels.items()}
        return {level: value for level, value in values.items() if not math.isnan(value)}

    def value(self) -> float:
        """Return the mean over levels; NaN if there was no row."""
        return _mean(list(self.levels().values()))


class TeachersCKA:
    """``PyramidCKA`` with each of several teachers, and its plain mean.

    The mean is not weighted by the teachers' weights in the loss: those differ between trials, which it compares.
    """

    def __init__(self, rows: Rows = "cells") -> None:
        self._rows = rows
        self._teachers: list[PyramidCKA] = []

    def add(self, student: DetectorOutputs, teachers: Sequence[DetectorOutputs], targets: Sequence[Target]) -> None:
        """Add one batch, with the outputs of every teacher."""
        self._teachers = self._teachers or [PyramidCKA(self._rows) for _ in teachers]
        for cka, teacher in zip(self._teachers, teachers, strict=True):
            cka.add(student, teacher, targets)

    def levels(self) -> dict[str, float]:
        """Return CKA by level: the mean over the teachers that have the level."""
        found = [cka.levels() for cka in self._teachers]
        names = dict.fromkeys(name for levels in found for name in levels)
        return {name: _mean([levels[name] for levels in found if name in levels]) for name in names}

    def value(self) -> float:
        """Return the mean over teachers."""
        return _mean([cka.value() for cka in self._teachers])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
