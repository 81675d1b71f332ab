"""Linear CKA: how alike student and teacher represent the same images, from 0 to 1.

CKA(X, Y) = ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F), X and Y column-centred, rows = cells of a pyramid level or
instances (Kornblith et al., arXiv:1905.00414, section 3; Auto-KD, ICCV 2023, calls 1 - CKA the representation gap).

Only the three products are kept, so the memory is that of C x C matrices however many rows there are.

Legend: R rows, X student's channels, Y teacher's channels, B images, C channels, H x W cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import roi_align

from autokd.data import Target
from autokd.distill.levels import cropped_alike, pair_levels
from autokd.outputs import DetectorOutputs

Rows = Literal["cells", "instances"]


class LinearCKA:
    """Linear CKA over batches of rows, centred exactly, accumulated in float64."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._products: tuple[Tensor, Tensor, Tensor] | None = None
        self._sums: tuple[Tensor, Tensor] | None = None
        self._shift: tuple[Tensor, Tensor] | None = None

    def add(self, student_RX: Tensor, teacher_RY: Tensor) -> None:
        """Take rows that correspond: row r of both describes the same cell."""
        if student_RX.shape[0] == 0:
            return
        x_RX, y_RY = student_RX.detach().double(), teacher_RY.detach().double()
        if self._shift is None:  # a common shift changes nothing but the rounding, which centring amplifies
            self._shift = (x_RX.mean(0), y_RY.mean(0))
        x_RX, y_RY = x_RX - self._shift[0], y_RY - self._shift[1]
        products = (x_RX.T @ x_RX, y_RY.T @ y_RY, y_RY.T @ x_RX)
        sums = (x_RX.sum(0), y_RY.sum(0))
        self._num_rows += x_RX.shape[0]
        if self._products is None or self._sums is None:
            self._products, self._sums = products, sums
            return
        for total, part in zip((*self._products, *self._sums), (*products, *sums)):
            total += part

    def value(self) -> float:
        """CKA of all rows so far; 0 where either side is constant, NaN where there was no row at all."""
        if self._products is None or self._sums is None:
            return math.nan
        xx, yy, yx = self._products
        sum_x, sum_y = self._sums
        xx = xx - torch.outer(sum_x, sum_x) / self._num_rows
        yy = yy - torch.outer(sum_y, sum_y) / self._num_rows
        yx = yx - torch.outer(sum_y, sum_x) / self._num_rows
        scale = float(torch.linalg.matrix_norm(xx) * torch.linalg.matrix_norm(yy))
        if scale <= 0.0:
            return 0.0
        return float(torch.linalg.matrix_norm(yx) ** 2) / scale


class PyramidCKA:
    """CKA of each level that student and teacher share, and its mean over levels."""

    def __init__(self, rows: Rows = "cells") -> None:
        self._rows = rows
        self._levels: dict[str, LinearCKA] = {}

    def add(self, student: DetectorOutputs, teacher: DetectorOutputs, targets: Sequence[Target]) -> None:
        """Take one batch. Levels are paired by stride, as distillers pair them; DistillError where none is common."""
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
        """CKA by level; levels without a row are left out."""
        values = {level: cka.value() for level, cka in self._levels.items()}
        return {level: value for level, value in values.items() if not math.isnan(value)}

    def value(self) -> float:
        """The mean over levels; NaN where there was no row."""
        values = list(self.levels().values())
        return sum(values) / len(values) if values else math.nan
