"""What flows through a term: the same knowledge of student and teacher, and which of its cells count.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from autokd.distill.grid import Cells, Grid, cells_of
from autokd.distill.regions import Everywhere, Region
from autokd.spec.vocabulary import MAP, Layout


@dataclass(frozen=True, eq=False)
class Knowledge:
    """One piece of knowledge, usually one pyramid level. Every operator changes both sides together.

    student_SCHW, teacher_SCHW: equal shapes; the teacher's is detached. Distributions are log-probabilities.
    grid: where the cells lie on the source's map, so that a region can be made anew at the size of the moment.
    region: what counts; None is everything. temperature: of the softmax that made a distribution.
    """

    student_SCHW: Tensor
    teacher_SCHW: Tensor
    grid: Grid
    region: Region | None = None
    layout: Layout = MAP
    temperature: float = 1.0
    level: int = 0
    """Index among the paired levels, for operators with parameters of their own for each level."""

    @cached_property
    def weights_SHW(self) -> Tensor | None:
        """How much each cell counts; None where all count alike."""
        if self.region is not None:
            return self.region.weights_SHW(self.grid)
        if self.cells.valid_PHW is None:
            return None
        num_patches = len(self.cells.rows_PH2)
        return Everywhere(len(self.student_SCHW) // num_patches, self.student_SCHW.device).weights_SHW(self.grid)

    @property
    def cells(self) -> Cells:
        return cells_of(self.grid, self.student_SCHW.device)

    @property
    def is_distribution(self) -> bool:
        return self.layout != MAP

    def values(self) -> tuple[Tensor, Tensor]:
        """Student and teacher as plain numbers: probabilities where the layout is a distribution."""
        if self.is_distribution:
            return self.student_SCHW.exp(), self.teacher_SCHW.exp()
        return self.student_SCHW, self.teacher_SCHW

    def with_maps(self, student_SCHW: Tensor, teacher_SCHW: Tensor, **changes: Any) -> Knowledge:
        """Return a copy that carries other maps (and other fields)."""
        changed = replace(self, student_SCHW=student_SCHW, teacher_SCHW=teacher_SCHW, **changes)
        if "grid" not in changes and "region" not in changes and "weights_SHW" in self.__dict__:
            changed.__dict__["weights_SHW"] = self.weights_SHW  # equal cells, equal weights: not made again
        return changed
