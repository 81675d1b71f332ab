"""The cells of a map that count: ground-truth boxes, and regions made from them at any size of the map.

Legend: B images, M the most boxes of an image, P patches of a source's sample, S samples, H x W cells. Boxes are
xyxy pixels of the network's input. No Python loop runs over boxes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from autokd.distill.geometry.grid import Cells, Grid, cells_of
from autokd.distill.step_memo import StepMemo
from autokd.errors import DistillError

Targets = Sequence[Mapping[str, Tensor]]
"""One mapping an image: ``boxes`` (n, 4) xyxy pixels of the network's input, ``labels`` (n,) from 0."""


class Boxes:
    """The ground-truth boxes of one batch, clipped to the image.

    A box that lies outside its image, or holds NaN, counts as absent.
    """

    def __init__(
        self,
        targets: Targets,
        num_images: int,
        size_px: tuple[int, int],
        device: torch.device,
        memo: StepMemo | None = None,
    ) -> None:
        """Read the targets of a batch.

        Args:
            targets: a mapping an image.
            num_images: images of the batch.
            size_px: (height, width) of the network's input, to which boxes are clipped.
            device: where the boxes are needed.
            memo: of the step that the batch belongs to; None: one of its own.

        Raises:
            DistillError: if the number of targets is not ``num_images``.
        """
        if len(targets) != num_images:
            raise DistillError(
                f"targets: {len(targets)} images, but the taps hold {num_images}. Give one mapping with 'boxes' "
                "an image, empty ones as a tensor of shape (0, 4)."
            )
        listed = [target["boxes"].detach().to(device, torch.float32).reshape(-1, 4) for target in targets]
        # NaN compares false with everything, so absent boxes cover no cell without a mask of their own.
        padded_BM4 = pad_sequence(listed, batch_first=True, padding_value=torch.nan)
        self.num_images = num_images
        self.padded_BM4 = _cleaned(padded_BM4, size_px)
        """The boxes of each image in a row of its own; absent ones and padding are NaN."""
        self._targets = targets
        self._memo = memo or StepMemo()

    @cached_property
    def present_BM(self) -> Tensor:
        """Which rows of ``padded_BM4`` are boxes."""
        return self.padded_BM4.isfinite().all(-1)

    @cached_property
    def labels_BM(self) -> Tensor:
        """The class of each box, int64, -1 for absent boxes; DistillError if a target has no labels."""
        if any("labels" not in target for target in self._targets):
            raise DistillError(
                "this distiller reads classes, but a target has no 'labels'. Give (n,) class numbers from 0."
            )
        listed = [target["labels"].detach().to(self.padded_BM4.device, torch.int64) for target in self._targets]
        padded_BM = pad_sequence(listed, batch_first=True, padding_value=-1)
        return torch.where(self.present_BM, padded_BM, -1)

    def keeping(self, kept_BM: Tensor) -> Boxes:
        """Return some of the boxes, in their places; the others count as absent.

        Args:
            kept_BM: which boxes stay.
        """
        part = copy(self)
        for computed in ("present_BM", "labels_BM"):
            part.__dict__.pop(computed, None)
        part.padded_BM4 = torch.where(kept_BM[..., None], self.padded_BM4, torch.nan)
        part._memo = StepMemo()  # the whole set's cells have the same keys
        return part

    def covered_SHW(self, stride: float, grid: Grid) -> Tensor:
        """Whether each cell of ``grid``, on a map with ``stride``, lies in a box of its image.

        A cell lies in a box whose extent holds the cell's center; along each axis a box holds at least the cell
        of its own center, so that no box is lost on a coarse map.
        """
        return self._memo.get(("covered", stride, grid), lambda: self._cover(stride, grid))

    def _cover(self, stride: float, grid: Grid) -> Tensor:
        rows_BPMH, columns_BPMW = covering(self, stride, grid)
        # A matrix product over the boxes in place of an (M, H, W) tensor for each image: many boxes need no memory.
        covered_BPHW = rows_BPMH.float().transpose(-1, -2) @ columns_BPMW.float() > 0
        return covered_BPHW.flatten(0, 1)


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
    is_present = (x2 >= x1) & (y2 >= y1) & (x2 > 0) & (y2 > 0) & (x1 < width) & (y1 < height)
    clipped = [x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)]
    return torch.where(is_present[..., None], torch.stack(clipped, dim=-1), torch.nan)


def _covers(low_BM: Tensor, high_BM: Tensor, cells_PN2: Tensor, length: int) -> Tensor:
    """(B, P, M, N): whether box m covers cell n along one axis; all numbers in cells of the source's map."""
    low, high = low_BM[:, None, :, None], high_BM[:, None, :, None]
    start, end = cells_PN2[None, :, None, :, 0], cells_PN2[None, :, None, :, 1]
    cell_center = (start + end) / 2
    # A detector may round its maps down, so that a box begins beyond the last cell: then that cell belongs to it.
    box_center = ((low + high) / 2).clamp(max=length - 0.5)
    return ((low <= cell_center) & (cell_center < high) | (start <= box_center) & (box_center < end)) & (end > start)


@dataclass(frozen=True, eq=False)
class Instances:
    """The boxes of the samples: boxes (S, 4) xyxy px (0 if absent), classes (S,) (-1: none), images (S,)."""

    boxes_S4: Tensor
    labels_S: Tensor
    images_S: Tensor
    present_S: Tensor
    """False for padding."""


class Region(ABC):
    """Weights of the cells of a grid, (S, H, W) >= 0; 0 leaves a cell out of every statistic.

    Weights are kept by grid, since every step of a term asks for them. A region belongs to one batch and is made anew
    for the next one, so a kept tensor is never out of date.
    """

    is_graded: ClassVar[bool] = False
    """Whether weights other than 0 and 1 occur."""

    def __init__(self) -> None:
        self._weights: dict[Grid, Tensor] = {}
        self._members: dict[Grid, Tensor] = {}

    def weights_SHW(self, grid: Grid) -> Tensor:
        """Return how much each cell of ``grid`` counts in a distance."""
        if grid not in self._weights:
            self._weights[grid] = self.make_SHW(grid)
        return self._weights[grid]

    def members_SHW(self, grid: Grid) -> Tensor:
        """Return 1 for each cell of ``grid`` that counts at all, else 0; statistics are over these."""
        if not self.is_graded:
            return self.weights_SHW(grid)
        if grid not in self._members:
            weights_SHW = self.weights_SHW(grid)
            self._members[grid] = (weights_SHW > 0).to(weights_SHW.dtype)
        return self._members[grid]

    @abstractmethod
    def make_SHW(self, grid: Grid) -> Tensor:
        """Compute the weights of the cells of ``grid``."""


class Inside(Region):
    """The cells inside any box: 1 there, 0 elsewhere."""

    def __init__(self, boxes: Boxes, stride: float) -> None:
        super().__init__()
        self._boxes, self._stride = boxes, stride

    def make_SHW(self, grid: Grid) -> Tensor:
        return self._boxes.covered_SHW(self._stride, grid).float()


class Outside(Region):
    """The cells outside all boxes: 1 there, 0 elsewhere."""

    def __init__(self, boxes: Boxes, stride: float) -> None:
        super().__init__()
        self._boxes, self._stride = boxes, stride

    def make_SHW(self, grid: Grid) -> Tensor:
        covered = self._boxes.covered_SHW(self._stride, grid)
        valid = cells_of(grid, covered.device).valid_PHW
        outside = ~covered
        if valid is not None:
            outside &= valid.repeat(self._boxes.num_images, 1, 1)
        return outside.float()


class Present(Region):
    """Whole samples: every cell of those that are there counts 1, of those that are absent 0."""

    def __init__(self, present_S: Tensor) -> None:
        super().__init__()
        self._there_S = present_S

    def make_SHW(self, grid: Grid) -> Tensor:
        cells = cells_of(grid, self._there_S.device)
        return (self._there_S[:, None, None, None] & _valid(cells)).flatten(0, 1).float()


class Weighed(Region):
    """Whole samples, each with a weight of its own; 0 for those that are absent."""

    is_graded = True

    def __init__(self, weights_S: Tensor) -> None:
        super().__init__()
        self._weights_S = weights_S

    def make_SHW(self, grid: Grid) -> Tensor:
        cells = cells_of(grid, self._weights_S.device)
        return (self._weights_S[:, None, None, None] * _valid(cells)).flatten(0, 1)


class Given(Region):
    """Weights that an operator has made for the cells as they are: nothing may pool or cut them afterwards."""

    is_graded = True

    def __init__(self, weights_SHW: Tensor) -> None:
        super().__init__()
        self._weights_SHW = weights_SHW

    def make_SHW(self, grid: Grid) -> Tensor:
        return self._weights_SHW


class Everywhere(Region):
    """Every cell but the padding of patches."""

    def __init__(self, num_samples: int, device: torch.device) -> None:
        super().__init__()
        self._num_samples, self._device = num_samples, device

    def make_SHW(self, grid: Grid) -> Tensor:
        return _valid(cells_of(grid, self._device)).repeat(self._num_samples, 1, 1).float()


def _valid(cells: Cells) -> Tensor:
    if cells.valid_PHW is not None:
        return cells.valid_PHW
    shape = (*cells.rows_PH2.shape[:2], cells.columns_PW2.shape[1])
    return torch.ones(shape, dtype=torch.bool, device=cells.rows_PH2.device)
