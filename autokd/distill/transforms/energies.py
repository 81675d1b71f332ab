"""Maps of energy: the mean magnitude at a cell or in a channel, and its softmax.

"Cells" are the cells of the region: if a source masks, means are over the cells that count.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.regions import Given
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.statistics import log_softmax_over_cells, mean_over_cells, num_cells
from autokd.distill.term_inputs import TermInputs
from autokd.spec.operator import SCALAR_MAP


class ChannelMean(Transform):
    """Each cell's mean over the channels of |x|^power: an attention map (S, 1, H, W).

    Layout map -> scalar_map. AT, arXiv:1612.03928, section 3.1 (power 2); FGD, arXiv:2111.11837, section 3.1 (power 1).
    """

    def __init__(self, context: BuildContext, power: int) -> None:
        super().__init__(context)
        self.power = power

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        channels = features.student_SCHW.shape[1]
        student, teacher = (x.sum(1, keepdim=True) / channels for x in magnitudes(features, self.power, inputs))
        return features.with_maps(student, teacher, layout=SCALAR_MAP)


class CellMean(Transform):
    """Each channel's mean over the cells of |x|^power: the channels in a row (S, 1, 1, C), with equal weights.

    Layout map -> scalar_map. A sample without any cell that counts does not count.
    FGD, arXiv:2111.11837, section 3.1 (power 1).
    """

    def __init__(self, context: BuildContext, power: int) -> None:
        super().__init__(context)
        self.power = power

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        weights, channels = features.members_SHW, features.student_SCHW.shape[1]
        student, teacher = (
            mean_over_cells(x, weights).flatten(1)[:, None, None] for x in magnitudes(features, self.power, inputs)
        )
        region = None
        if weights is not None:
            has_cells_S11 = weights.flatten(1).amax(1)[:, None, None]
            region = Given(has_cells_S11.expand(-1, 1, channels))
        return features.with_maps(student, teacher, grid=Grid(1, channels), region=region, layout=SCALAR_MAP)


class SpatialSoftmax(Transform):
    """N * softmax over cells of x / temperature, 1 on average.

    Layout scalar_map -> scalar_map. N is the number of cells that count. FGD, arXiv:2111.11837, section 3.1: the
    attention of cells after ``channel_mean``, that of channels after ``cell_mean``.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        members = features.members_SHW
        return num_cells(x_SCHW, members) * log_softmax_over_cells(x_SCHW / self.temperature, members).exp()


def magnitudes(features: FeaturePair, power: int, inputs: TermInputs) -> tuple[Tensor, Tensor]:
    """Return |x| (power 1) or x^2 (power 2) of student and teacher.

    The student's is not shared between terms: its gradient would be summed in another order than term by term.
    """
    return magnitude(features.student_SCHW, power), teacher_magnitude(features, power, inputs)


def teacher_magnitude(features: FeaturePair, power: int, inputs: TermInputs) -> Tensor:
    """Return |t| or t^2, computed once in a step for all pairs of the same maps."""
    teacher_SCHW = features.teacher_SCHW
    if teacher_SCHW.requires_grad:  # a learned step on the teacher's side: as for the student
        return magnitude(teacher_SCHW, power)
    return inputs.shared(("teacher's magnitude", power, features.maps_key), lambda: magnitude(teacher_SCHW, power))


def magnitude(x_SCHW: Tensor, power: int) -> Tensor:
    """Return |x| (power 1) or x^2 (power 2)."""
    return x_SCHW.abs() if power == 1 else x_SCHW.square()
