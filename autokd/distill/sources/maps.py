"""Sources of pyramid maps: whole, parts of them, and regions of boxes.

Legend: B images, M the most boxes of an image, C channels, H x W cells.
"""

from __future__ import annotations

from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.region_means import RegionWeights
from autokd.distill.geometry.regions import Inside, Outside, Region
from autokd.distill.operators import BuildContext, Source
from autokd.distill.region_sets import boxes_at_own_level
from autokd.distill.term_inputs import TermInputs
from autokd.distill.weighting.disparity import weighed_regions
from autokd.distill.weighting.scale_weights import ScaleWeights
from autokd.spec.operator import REGIONS


class FeatureMap(Source):
    """Every cell of every paired level, with equal weights.

    FitNets, arXiv:1412.6550.
    """

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        return tuple(self._level(inputs, level) for level in self.levels(inputs))

    def region(self, inputs: TermInputs, level: int) -> Region | None:
        """Return the cells that count at a paired level; None for all."""
        return None

    def _level(self, inputs: TermInputs, level: int) -> FeaturePair:
        student_BCHW, teacher_BCHW = self.maps(inputs, level)
        height, width = student_BCHW.shape[-2:]
        # Foreground and background of a level are pairs of the same maps, and may share what is made of those.
        maps_key = ("maps", level, self.adapter)
        grid, region = Grid(height, width), self.region(inputs, level)
        return FeaturePair(student_BCHW, teacher_BCHW, grid, region=region, level=level, maps_key=maps_key)


class Foreground(FeatureMap):
    """The cells inside ground-truth boxes, on every paired level.

    FGD, arXiv:2111.11837, eq. 2.
    """

    def region(self, inputs: TermInputs, level: int) -> Region:
        return Inside(inputs.boxes, inputs.pairs[level].stride)


class Background(FeatureMap):
    """The cells outside all ground-truth boxes, on every paired level.

    FGD, arXiv:2111.11837, eq. 2. With ``own_level`` a box covers cells of the level of its size alone, and is
    background on the others, as in the released code of Global Knowledge, arXiv:2210.09022.
    """

    def __init__(self, context: BuildContext, own_level: int) -> None:
        super().__init__(context)
        self.own_level = bool(own_level)

    def region(self, inputs: TermInputs, level: int) -> Region:
        boxes = boxes_at_own_level(inputs, level) if self.own_level else inputs.boxes
        return Outside(boxes, inputs.pairs[level].stride)


class ForegroundBackground(FeatureMap):
    """Every cell of every paired level, with weights that give boxes of all sizes the same influence.

    A cell inside boxes has weight 1 / (number of cells of the box), the greatest of its boxes; the weights of the cells
    outside sum to ``background``. FGD, arXiv:2111.11837, section 3.1.
    """

    def __init__(self, context: BuildContext, background: float) -> None:
        super().__init__(context)
        self.background = background

    def region(self, inputs: TermInputs, level: int) -> Region:
        return ScaleWeights(inputs.boxes, inputs.pairs[level].stride, self.background)


class ForegroundMap(FeatureMap):
    """The map times 1 / (number of cells of the box), the greatest of its boxes, and 0 outside all boxes.

    Unlike in ``foreground``, every cell counts: the cells outside are zeros, over which later steps take statistics and
    means. DetKDS's released code, ICML 2024, which takes a margin around a box besides.
    """

    def _level(self, inputs: TermInputs, level: int) -> FeaturePair:
        features = super()._level(inputs, level)
        factor_S1HW = self.factor_SHW(inputs, level, features.grid)[:, None]
        return features.with_maps(features.student_SCHW * factor_S1HW, features.teacher_SCHW * factor_S1HW)

    def factor_SHW(self, inputs: TermInputs, level: int, grid: Grid) -> Tensor:
        """Return the factor of each cell at a paired level."""
        return ScaleWeights(inputs.boxes, inputs.pairs[level].stride, 0.0).weights_SHW(grid)


class BackgroundMap(ForegroundMap):
    """The map times 1 / (number of cells outside all boxes of the image), and 0 in boxes; every cell counts.

    DetKDS's released code, ICML 2024.
    """

    def factor_SHW(self, inputs: TermInputs, level: int, grid: Grid) -> Tensor:
        """Return the factor of each cell at a paired level."""
        outside_SHW = Outside(inputs.boxes, inputs.pairs[level].stride).weights_SHW(grid)
        return outside_SHW / outside_SHW.sum((1, 2), keepdim=True).clamp_min(1)


class Instance(Source):
    """Each ground-truth box pooled to ``size`` x ``size`` cells; a region is a sample.

    A region's cell is the mean of all that it covers, as RoIAlign with as many points as it takes: a fixed number of
    points would read 16 of the 2,500 cells of a large box on a fine level. Boxes of an image are padded to the largest
    number in any image; padding counts nowhere. Every box is pooled on every paired level, as ``foreground`` has every
    box on every level: with each box on the one level of its size, small images would leave all but one level without a
    term, and the number of regions would depend on the data.
    G-DetKD, arXiv:2108.07482, section 3.1. With ``region_weights`` regions count by their disparity on each level.
    """

    def __init__(self, context: BuildContext, size: int, region_weights: int) -> None:
        super().__init__(context)
        self.size, self.region_weights = size, region_weights

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        boxes_BM4 = inputs.boxes.padded_BM4.nan_to_num(0.0)
        instances = inputs.instances
        pieces = []
        for level in self.levels(inputs):
            maps, stride = self.maps(inputs, level), inputs.pairs[level].stride
            height, width = maps[1].shape[-2:]
            weights = RegionWeights.of(boxes_BM4.to(maps[1]), stride, (height, width), self.size)
            student, teacher = (weights.pool(x_BCHW) for x_BCHW in maps)
            region = weighed_regions(student, teacher, instances.present_S, self.region_weights)
            grid = Grid(self.size, self.size)
            pieces.append(FeaturePair(student, teacher, grid, region, REGIONS, level=level, instances=instances))
        return tuple(pieces)
