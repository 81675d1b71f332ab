"""Adaptation layers: small learned maps of the student's side alone, which the teacher's side does not pass.

FBKD's released code has one in each of its four terms, beside the layers that bring the student to the teacher's
channels: the student then need not become equal to the teacher, but to what a linear map can turn into it. The release
starts them at random; here they start as the identity, as if they were not there. Each level has its own.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.term_inputs import TermInputs
from autokd.distill.transforms.energies import CellMean, ChannelMean
from autokd.distill.transforms.joint_attention import SharedAttention


class StudentProjection(Transform):
    """The student's map through a 1x1 convolution with bias; the teacher stays as it is.

    Layout stays. FBKD, ICLR 2021: the released code's layer behind the student's non-local block.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        self.layers = _of_levels(context, _projection)

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        student_SCHW = self.layers[features.level](features.student_SCHW)
        return features.with_maps(student_SCHW, features.teacher_SCHW)


class AdaptedAttention(SharedAttention):
    """``shared_attention``, whose product on the student's side is with the map through a 1x1 convolution.

    Layout map -> map. The attention is of the maps before it. FBKD, ICLR 2021, section 3.1, and its released code.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context, temperature)
        self.layers = _of_levels(context, _projection)

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        factor_SCHW = self.factor_SCHW(features, inputs)
        student_SCHW = self.layers[features.level](features.student_SCHW)
        return features.with_maps(student_SCHW * factor_SCHW, features.teacher_SCHW * factor_SCHW)


class AdaptedChannelMean(ChannelMean):
    """Each cell's mean over the channels of |x|; the student's then passes a 3x3 convolution with bias.

    Layout map -> scalar_map. FBKD, ICLR 2021, section 3.1, and its released code.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context, power=1)
        self.layers = _of_levels(context, _smoothing)

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        means = super().forward(features, inputs)
        members = means.members_SHW
        student_S1HW = means.student_SCHW if members is None else means.student_SCHW * members[:, None]
        return means.with_maps(self.layers[features.level](student_S1HW), means.teacher_SCHW)


class AdaptedCellMean(CellMean):
    """Each channel's mean over the cells of |x|; the student's then passes a linear map of the channels with bias.

    Layout map -> scalar_map. FBKD, ICLR 2021, section 3.1, and its released code.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context, power=1)
        self.layers = _of_levels(context, _mixing)

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        means = super().forward(features, inputs)
        return means.with_maps(self.layers[features.level](means.student_SCHW), means.teacher_SCHW)


def _of_levels(context: BuildContext, make: Callable[[int], nn.Module]) -> nn.ModuleList:
    return nn.ModuleList(make(pair.channels) for pair in context.pairs)


def _projection(channels: int) -> nn.Conv2d:
    return _as_identity(nn.Conv2d(channels, channels, kernel_size=1))


def _smoothing(_: int) -> nn.Conv2d:
    return _as_identity(nn.Conv2d(1, 1, kernel_size=3, padding=1))


def _mixing(channels: int) -> nn.Linear:
    layer = nn.Linear(channels, channels)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _as_identity(layer: nn.Conv2d) -> nn.Conv2d:
    assert layer.bias is not None
    nn.init.dirac_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
