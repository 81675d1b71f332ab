"""Small learned networks on a map, with parameters of their own for each paired level.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

from torch import Tensor, nn

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.statistics import log_softmax_over_cells
from autokd.distill.term_inputs import TermInputs
from autokd.distill.transforms.energies import teacher_magnitude
from autokd.distill.transforms.masks import attended, draw_kept

_BY_ATTENTION = 2


class MaskedGeneration(Transform):
    """The student's map with a part of its cells set to 0, then completed by 3x3 convolution - ReLU - 3x3 convolution.

    Layout map -> map; the teacher stays as it is. Cells that do not count, padding of patches among them, are set to 0
    too. With ``mask`` 1 each cell is set to 0 with probability ``drop``: MGD, arXiv:2205.01529, section 3.1. With
    ``mask`` 2 it is the part ``drop`` of each sample's cells at which the teacher's attention, mean_c |t|, is greatest,
    so that the student must rebuild what the teacher looks at from its surroundings: after AMD, arXiv:2301.13538, which
    sets a threshold of the attention in place of a part of the cells.
    """

    def __init__(self, context: BuildContext, drop: float, mask: int) -> None:
        super().__init__(context)
        self.drop = drop
        self.by_attention = mask == _BY_ATTENTION
        self.generators = nn.ModuleList(_generator(pair.channels) for pair in context.pairs)

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        student_SCHW = features.student_SCHW
        members_SHW = features.members_SHW
        if self.by_attention:
            kept_S1HW = ~attended(teacher_magnitude(features, 1, inputs).mean(1), members_SHW, self.drop)[:, None]
        else:
            kept_S1HW = draw_kept(student_SCHW, self.drop, inputs)
        if members_SHW is not None:
            kept_S1HW = kept_S1HW & (members_SHW[:, None] > 0)
        generated = self.generators[features.level](student_SCHW.masked_fill(~kept_S1HW, 0.0))
        return features.with_maps(generated, features.teacher_SCHW)


def _generator(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
    )


class GlobalContext(Transform):
    """x + the global context of its sample; student and teacher have a block of their own.

    Layout map -> map. Each level has its own two blocks, which both learn; their last convolution starts at 0, so that
    the step starts as the identity. The context is over the cells that count. FGD, arXiv:2111.11837, section 3.2;
    GCNet, arXiv:1904.11492.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        self.student = nn.ModuleList(ContextBlock(pair.channels) for pair in context.pairs)
        self.teacher = nn.ModuleList(ContextBlock(pair.channels) for pair in context.pairs)

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        members, level = features.members_SHW, features.level
        return features.with_maps(
            self.student[level](features.student_SCHW, members), self.teacher[level](features.teacher_SCHW, members)
        )


class ContextBlock(nn.Module):
    """x + W2 ReLU(LayerNorm(W1 c)), c the mean of x by a softmax over the cells of w x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.attention = nn.Conv2d(channels, 1, kernel_size=1)
        last = nn.Linear(inner, channels)
        self.change = nn.Sequential(nn.Linear(channels, inner), nn.LayerNorm(inner), nn.ReLU(), last)
        # Zeros, so that the block starts as the identity, and the term as one without it.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x_SCHW: Tensor, members_SHW: Tensor | None) -> Tensor:
        share_S1HW = log_softmax_over_cells(self.attention(x_SCHW), members_SHW).exp()
        context_SC = (x_SCHW * share_S1HW).sum((2, 3))
        return x_SCHW + self.change(context_SC)[:, :, None, None]
