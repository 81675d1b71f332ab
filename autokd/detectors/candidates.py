"""Candidates of a detector: what the rows of ``class_logits`` and ``boxes`` stand for. Numbers only.

Row r of a dense head is an anchor of a cell of a level. A row of a query-based detector is a query, which has no place
of its own, so no two detectors share queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Cells = tuple[tuple[int, int, int], ...]
"""(stride in pixels, rows, columns) of each level, fine to coarse."""


@dataclass(frozen=True, slots=True)
class PredictionLayout:
    """The order in which a detector lists its candidates.

    Args:
        cells: stride, rows and columns of each level; empty for queries.
        anchors_per_cell: candidates of one cell.
        anchors: (width, height) in strides, if a cell has several.
        num_bins: bins of an edge's distribution; 0 if the detector predicts none.
    """

    cells: Cells
    anchors_per_cell: int = 1
    anchors: tuple[tuple[float, float], ...] = ()
    num_bins: int = 0

    @property
    def number(self) -> int:
        """Candidates of one image."""
        return self.anchors_per_cell * sum(rows * columns for _, rows, columns in self.cells)

    def __str__(self) -> str:
        if not self.cells:
            return "queries, which have no place of their own"
        strides = ", ".join(str(stride) for stride, _, _ in self.cells)
        return f"{self.number} ({self.anchors_per_cell} a cell on strides {strides})"


def grid_cells(strides: Sequence[int], image_size_px: tuple[int, int], pad_multiple_px: int) -> Cells:
    """Return the cells of each level for one image.

    Args:
        strides: pixels of the network's input per cell, fine to coarse.
        image_size_px: (height, width) before padding.
        pad_multiple_px: both sides are padded to a multiple of it.
    """
    height, width = (-(-side // pad_multiple_px) * pad_multiple_px for side in image_size_px)
    return tuple((stride, -(-height // stride), -(-width // stride)) for stride in strides)
