"""A memory of anchors, which depend on the cells of the levels alone.

Legend: A anchors of an image over all levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_LARGEST_MEMORY = 16
"""Kept sizes of images; a data set of many sizes would otherwise fill the memory with anchors."""

Cells = tuple[tuple[int, int], ...]
"""(rows, columns) of each level, fine to coarse."""


class AnchorTable:
    """Anchors of torchvision for pyramids of any size.

    Args:
        generator: torchvision's ``AnchorGenerator``.
        strides: pixels of the network's input per cell, by level, fine to coarse.
    """

    def __init__(self, generator: Any, strides: Sequence[int]) -> None:
        self._generator = generator
        self._strides = tuple(strides)
        self._known: dict[tuple[Cells, torch.device], tuple[Tensor, list[int]]] = {}

    def __call__(self, cells: Cells, device: torch.device) -> tuple[Tensor, list[int]]:
        """Return (A, 4) xyxy pixels in float32, levels fine to coarse, and the number of anchors of each level."""
        key = (cells, device)
        if key not in self._known:
            if len(self._known) >= _LARGEST_MEMORY:
                self._known.clear()
            self._generator.set_cell_anchors(torch.float32, device)
            strides = [[torch.tensor(stride, device=device)] * 2 for stride in self._strides]
            by_level = self._generator.grid_anchors([list(size) for size in cells], strides)
            self._known[key] = (torch.cat(by_level), [len(level_A4) for level_A4 in by_level])
        return self._known[key]
