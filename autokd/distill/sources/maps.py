"""Sources that look at the pyramid: which part of it a term compares. One class a row of ``tables/maps``.

Legend: B images, M the most boxes of an image, C channels, H x W cells.
"""

from __future__ import annotations

from autokd.distill.batch import Batch
from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.regions import Inside, Outside, Present, Region
from autokd.distill.geometry.roi_align import roi_align
from autokd.distill.knowledge import Knowledge
from autokd.distill.operators import BuildContext, Source
from autokd.distill.weighting.scale_weights import ScaleWeights
from autokd.spec.operator import REGIONS


class Whole(Source):
    """Every cell of every paired level, equally.

    FitNets, arXiv:1412.6550.
    """

    def forward(self, batch: Batch) -> tuple[Knowledge, ...]:
        return tuple(self._level(batch, level) for level in range(len(batch.pairs)))

    def region(self, batch: Batch, level: int) -> Region | None:
        """What counts at a paired level; None is everything."""
        return None

    def _level(self, batch: Batch, level: int) -> Knowledge:
        student_BCHW, teacher_BCHW = batch.maps(level)
        height, width = student_BCHW.shape[-2:]
        return Knowledge(student_BCHW, teacher_BCHW, Grid(height, width), region=self.region(batch, level), level=level)


class Foreground(Whole):
    """The cells inside ground-truth boxes, on every paired level.

    FGD, arXiv:2111.11837, eq. 2.
    """

    def region(self, batch: Batch, level: int) -> Region:
        return Inside(batch.boxes, batch.pairs[level].stride)


class Background(Whole):
    """The cells outside all ground-truth boxes, on every paired level.

    FGD, arXiv:2111.11837, eq. 2.
    """

    def region(self, batch: Batch, level: int) -> Region:
        return Outside(batch.boxes, batch.pairs[level].stride)


class ForegroundBackground(Whole):
    """Every cell of every paired level, boxes weighing alike whatever their size, and the background besides.

    A cell inside boxes weighs 1 / (number of cells of the box), the greatest of its boxes; the cells outside together
    weigh ``background``. FGD, arXiv:2111.11837, section 3.1.
    """

    def __init__(self, context: BuildContext, background: float) -> None:
        super().__init__(context)
        self.background = background

    def region(self, batch: Batch, level: int) -> Region:
        return ScaleWeights(batch.boxes, batch.pairs[level].stride, self.background)


class Instance(Source):
    """RoIAlign of each ground-truth box to ``size`` x ``size`` cells; a region is a sample.

    Boxes of an image are padded to the most of any image; the samples that fill up count nowhere. Every box is
    pooled on every paired level, as ``foreground`` looks at every box on every level: assigning a
    box to the one level of its size would leave all but one level without a term on small images, and the
    number of regions would depend on the data. G-DetKD, arXiv:2108.07482, section 3.1.
    """

    def __init__(self, context: BuildContext, size: int) -> None:
        super().__init__(context)
        self.size = size

    def forward(self, batch: Batch) -> tuple[Knowledge, ...]:
        boxes_BM4 = batch.boxes.padded_BM4.nan_to_num(0.0)
        instances = batch.instances
        region = Present(instances.there_S)
        pieces = []
        for level, pair in enumerate(batch.pairs):
            student, teacher = (roi_align(x_BCHW, boxes_BM4, pair.stride, self.size) for x_BCHW in batch.maps(level))
            grid = Grid(self.size, self.size)
            pieces.append(Knowledge(student, teacher, grid, region, REGIONS, level=level, instances=instances))
        return tuple(pieces)
