"""Which cells of a map count: ground-truth boxes, and regions made from them at whatever size the map has.

Legend: B images, M the most boxes of an image, P patches of a source's sample, S samples, H x W cells. Boxes are
xyxy pixels of the network's input. No Python loop runs over boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from autokd.distill.geometry.grid import Cells, Grid, cells_of
from autokd.errors import DistillError

Targets = Sequence[Mapping[str, Tensor]]
"""One mapping an image: ``boxes`` (n, 4) xyxy pixels of the network's input, ``labels`` (n,) from 0."""


class Boxes:
    """The ground-truth boxes of one batch, clipped to the image.

    A box that lies outside its image, or holds NaN, counts as absent.
    """

    def __init__(self, targets: Targets, num_images: int, size_px: tuple[int, int], device: torch.device) -> None:
        if len(targets) != num_images:
            raise DistillError(
                f"targets: {len(targets)} images, but the taps hold {num_images}. Give one mapping with 'boxes' "
                "an image, empty ones as a tensor of shape (0, 4)."
            )
        listed = [target["boxes"].detach().to(device, torch.float32).reshape(-1, 4) for target in targets]
        padded_BM4 = pad_sequence(listed, batch_first=True, padding_value=torch.nan)
        self.num_images = num_images
        self.padded_BM4 = _cleaned(padded_BM4, size_px)
        """The boxes of each image in a row of its own; absent ones, which also fill up the rows, are NaN."""
        self._targets = targets
        self._covered: dict[tuple[float, Grid], Tensor] = {}

    @cached_property
    def there_BM(self) -> Tensor:
        """Which rows of ``padded_BM4`` are boxes."""
        return self.padded_BM4.isfinite().all(-1)

    @cached_property
    def labels_BM(self) -> Tensor:
        """The class of each box, int64, -1 where there is no box; DistillError if the targets tell no labels."""
        if any("labels" not in target for target in self._targets):
            raise DistillError(
                "this distiller looks at classes, but a target has no 'labels'. Give (n,) class numbers from 0."
            )
        listed = [target["labels"].detach().to(self.padded_BM4.device, torch.int64) for target in self._targets]
        padded_BM = pad_sequence(listed, batch_first=True, padding_value=-1)
        return torch.where(self.there_BM, padded_BM, -1)

    def covered_SHW(self, stride: float, grid: Grid) -> Tensor:
        """Whether each cell of ``grid``, on a map with ``stride``, lies in a box of its image.

        A cell lies in a box whose extent holds the cell's centre; along each axis a box holds at least the cell
        of its own centre, so that no box is lost on a coarse map.
        """
        key = (stride, grid)
        if key not in self._covered:
            rows_BPMH, columns_BPMW = covering(self, stride, grid)
            covered_BPHW = rows_BPMH.float().transpose(-1, -2) @ columns_BPMW.float() > 0
            self._covered[key] = covered_BPHW.flatten(0, 1)
        return self._covered[key]


def covering(boxes: Boxes, stride: float, grid: Grid) -> tuple[Tensor, Tensor]:
    """(B, P, M, H) and (B, P, M, W): which rows and columns of ``grid`` each box covers; a cell needs both."""
    boxes_BM4 = boxes.padded_BM4 / stride
    cells = cells_of(grid, boxes_BM4.device)
    rows_BPMH = _covers(boxes_BM4[..., 1], boxes_BM4[..., 3], cells.rows_PH2, grid.height)
    columns_BPMW = _covers(boxes_BM4[..., 0], boxes_BM4[..., 2], cells.columns_PW2, grid.width)
    return rows_BPMH, columns_BPMW


def _cleaned(boxes_xyxy_px: Tensor, size_px: tuple[int, int]) -> Tensor:
    height, width = size_px
    x1, y1, x2, y2 = boxes_xyxy_px.unbind(-1)
    there = (x2 >= x1) & (y2 >= y1) & (x2 > 0) & (y2 > 0) & (x1 < width) & (y1 < height)
    clipped = [x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)]
    return torch.where(there[..., None], torch.stack(clipped, dim=-1), torch.nan)


def _covers(low_BM: Tensor, high_BM: Tensor, cells_PN2: Tensor, length: int) -> Tensor:
    """(B, P, M, N): whether box m covers cell n along one axis; all numbers in cells of the source's map."""
    low, high = low_BM[:, None, :, None], high_BM[:, None, :, None]
    start, end = cells_PN2[None, :, None, :, 0], cells_PN2[None, :, None, :, 1]
    cell_centre = (start + end) / 2
    # A detector may round its maps down, so that a box begins beyond the last cell: that cell is then its own.
    box_centre = ((low + high) / 2).clamp(max=length - 0.5)
    return ((low <= cell_centre) & (cell_centre < high) | (start <= box_centre) & (box_centre < end)) & (end > start)


@dataclass(frozen=True, eq=False)
class Instances:
    """Whose regions the samples are: boxes (S, 4) xyxy px (0 where absent), classes (S,) (-1: none), images (S,)."""

    boxes_S4: Tensor
    labels_S: Tensor
    images_S: Tensor
    there_S: Tensor
    """False for samples that only fill up."""


class Region(Protocol):
    """Weights of the cells of a grid, (S, H, W) >= 0; 0 leaves a cell out of every statistic."""

    @property
    def is_graded(self) -> bool:
        """Whether weights other than 0 and 1 occur."""
        ...

    def weights_SHW(self, grid: Grid) -> Tensor: ...


class Inside:
    """The cells inside any box: 1 there, 0 elsewhere."""

    is_graded = False

    def __init__(self, boxes: Boxes, stride: float) -> None:
        self._boxes, self._stride = boxes, stride

    def weights_SHW(self, grid: Grid) -> Tensor:
        return self._boxes.covered_SHW(self._stride, grid).float()


class Outside:
    """The cells outside all boxes: 1 there, 0 elsewhere."""

    is_graded = False

    def __init__(self, boxes: Boxes, stride: float) -> None:
        self._boxes, self._stride = boxes, stride

    def weights_SHW(self, grid: Grid) -> Tensor:
        covered = self._boxes.covered_SHW(self._stride, grid)
        valid = cells_of(grid, covered.device).valid_PHW
        outside = ~covered
        if valid is not None:
            outside &= valid.repeat(self._boxes.num_images, 1, 1)
        return outside.float()


class Present:
    """Whole samples: every cell of those that are there counts 1, of those that are absent 0."""

    is_graded = False

    def __init__(self, there_S: Tensor) -> None:
        self._there_S = there_S

    def weights_SHW(self, grid: Grid) -> Tensor:
        cells = cells_of(grid, self._there_S.device)
        return (self._there_S[:, None, None, None] & _valid(cells)).flatten(0, 1).float()


class Given:
    """Weights that an operator has made for the cells as they are: nothing may pool or cut them afterwards."""

    is_graded = True

    def __init__(self, weights_SHW: Tensor) -> None:
        self._weights_SHW = weights_SHW

    def weights_SHW(self, grid: Grid) -> Tensor:
        return self._weights_SHW


class Everywhere:
    """Every cell but the padding of patches."""

    is_graded = False

    def __init__(self, num_samples: int, device: torch.device) -> None:
        self._num_samples, self._device = num_samples, device

    def weights_SHW(self, grid: Grid) -> Tensor:
        return _valid(cells_of(grid, self._device)).repeat(self._num_samples, 1, 1).float()


def _valid(cells: Cells) -> Tensor:
    if cells.valid_PHW is not None:
        return cells.valid_PHW
    shape = (*cells.rows_PH2.shape[:2], cells.columns_PW2.shape[1])
    return torch.ones(shape, dtype=torch.bool, device=cells.rows_PH2.device)
