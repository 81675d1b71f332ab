"""The value that flows through a term: features of student and teacher of equal shape, and the cells that count.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from autokd.distill.geometry.grid import Cells, Grid, cells_of
from autokd.distill.geometry.regions import Everywhere, Instances, Region
from autokd.spec.operator import BINARY, DISTRIBUTIONS, MAP, Layout


@dataclass(frozen=True, eq=False)
class FeaturePair:
    """Features of student and teacher that a term compares, usually of one pyramid level.

    Every operator changes both sides together.

    Args:
        student_SCHW, teacher_SCHW: maps of equal shape, the teacher's detached. Distributions are log-probabilities.
        grid: where the cells lie on the source's map, so that a region can be made anew at another size.
        region: the cells that count; None for all.
        layout: the kind of the maps; see ``autokd.spec.operator``.
        temperature: of the softmax that made a distribution, else 1.
    """

    student_SCHW: Tensor
    teacher_SCHW: Tensor
    grid: Grid
    region: Region | None = None
    layout: Layout = MAP
    temperature: float = 1.0
    level: int = 0
    """Index among the paired levels, for operators with parameters of their own for each level."""
    instances: Instances | None = None
    """Layout ``regions``: the boxes of the samples."""
    labels_SHW: Tensor | None = None
    """Layout ``logits``: the class that each candidate box should have, -1 for none; int64."""
    maps_key: Hashable = field(default_factory=object)
    """Names the two maps among all that flow in one step: equal keys, the very same tensors. For values shared by key
    (``TermInputs.shared``). A source that gives one map in several pairs sets it; ``with_maps`` sets a new one, so maps
    are never changed by ``dataclasses.replace``. An ``object()`` equals itself alone, and a memo that holds it as a key
    keeps it from being freed and its identity from being given out again."""

    @property
    def weights_SHW(self) -> Tensor | None:
        """Weight of each cell in a distance, (S, H, W); None if all have the same."""
        if self.region is not None:
            return self.region.weights_SHW(self.grid)
        if self.cells.valid_PHW is None:
            return None
        num_patches = len(self.cells.rows_PH2)
        return Everywhere(len(self.student_SCHW) // num_patches, self.student_SCHW.device).weights_SHW(self.grid)

    @property
    def members_SHW(self) -> Tensor | None:
        """1 for the cells that count at all, 0 for the others; None if all count. Statistics are over these."""
        return self.weights_SHW if self.region is None else self.region.members_SHW(self.grid)

    @property
    def cells(self) -> Cells:
        """Where the cells lie on the source's map."""
        return cells_of(self.grid, self.student_SCHW.device)

    def values(self) -> tuple[Tensor, Tensor]:
        """Return student and teacher as plain numbers: probabilities if the layout holds their logarithms."""
        if self.layout in DISTRIBUTIONS:
            return self.student_SCHW.exp(), self.teacher_SCHW.exp()
        if self.layout == BINARY:
            return self.student_SCHW.sigmoid(), self.teacher_SCHW.sigmoid()
        return self.student_SCHW, self.teacher_SCHW

    def with_maps(self, student_SCHW: Tensor, teacher_SCHW: Tensor, **changes: Any) -> FeaturePair:
        """Return a pair of other maps, which is otherwise this one but for ``changes``.

        Args:
            student_SCHW, teacher_SCHW: the new maps, equal in shape.
            changes: other fields with their new values.
        """
        return replace(self, student_SCHW=student_SCHW, teacher_SCHW=teacher_SCHW, maps_key=object(), **changes)
