"""The source of semantic-guided imitation: each region of the teacher against a mixture of the student's levels.

Legend: S regions of a batch, L student's levels, C channels, D numbers of an embedding.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.levels import own_random_numbers
from autokd.distill.operators import BuildContext, Source
from autokd.distill.region_sets import common_channels, regions_at_own_level, regions_of, regions_on_levels
from autokd.distill.term_inputs import TermInputs
from autokd.distill.weighting.disparity import weighed_regions
from autokd.errors import DistillError
from autokd.spec.operator import REGIONS

_EMBEDDING_CHANNELS = 32
_SAMPLES = 4
"""Points of a region's cell, per side. With 7 x 7 cells they read all of 56 cells per side: of a region on its own
level, and on the level below it. Means of all that a cell covers would cost four to eight times as much."""


class SemanticGuided(Source):
    """Teacher: RoIAlign on the level of the region's size. Student: the same region on every level, mixed.

    The mixture is sum_l alpha_l f(S_l), alpha = softmax over the levels l of <e(f(S_l)), e(T)> / tau, f a 1x1
    convolution (none if channels agree), e two stride-2 convolutions, tau > 0 learned. Regions: ground truth
    and the student's proposals, if it gives any. So levels of different meaning, and pyramids that
    share no stride, can be matched. G-DetKD (ICCV 2021), arXiv:2108.07482, section 3.2, eqs. 1 to 3. With
    ``region_weights`` regions count by their disparity.
    """

    def __init__(self, context: BuildContext, size: int, region_weights: int) -> None:
        super().__init__(context)
        self.size, self.region_weights = size, region_weights
        student, teacher = context.student, context.teacher
        if student is None or teacher is None:
            raise DistillError("source 'semantic_guided' is made for a pair of detectors; give their outputs.")
        self._student_strides, self._teacher_strides = dict(student.strides), dict(teacher.strides)
        channels = common_channels(teacher, "teacher", "semantic_guided")
        widths = {level: map_BCHW.shape[1] for level, map_BCHW in student.pyramid.items()}
        self.adapters = nn.ModuleDict()
        for width in dict.fromkeys(widths.values()):
            if width != channels:
                with own_random_numbers(f"semantic-guided adapter {width}"):
                    self.adapters[str(width)] = nn.Conv2d(width, channels, kernel_size=1)
        embedding = min(channels, _EMBEDDING_CHANNELS)
        half = (size + 1) // 2
        self.embed = nn.Sequential(
            nn.Conv2d(channels, embedding, kernel_size=2, stride=2, padding=size % 2),
            nn.ReLU(),
            nn.Conv2d(embedding, embedding, kernel_size=2, stride=2, padding=half % 2),
            nn.Flatten(),
        )
        cells = (half + 1) // 2
        self.log_temperature = nn.Parameter(torch.tensor(0.5 * float(embedding * cells * cells)).log())
        """Logarithm of tau, so that tau stays above 0. It starts at half the length of the embedding: inner products of
        random embeddings then differ by about 1, and the softmax begins with a mixture of levels."""

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        instances = regions_of(inputs).instances
        teacher_SChw = regions_at_own_level(
            inputs, inputs.teacher_maps, self._teacher_strides, self.size, "teacher", _SAMPLES
        )
        mixed_SChw = self.mix(self._students(inputs), teacher_SChw)
        grid = Grid(self.size, self.size)
        region = weighed_regions(mixed_SChw, teacher_SChw, instances.present_S, self.region_weights)
        piece = FeaturePair(mixed_SChw, teacher_SChw, grid, region, REGIONS, instances=instances)
        return (piece,)

    def mix(self, student_LSChw: Tensor, teacher_SChw: Tensor) -> Tensor:
        """Return the student's levels, weighted by the similarity of their embeddings to the teacher's (eqs. 1-3)."""
        num_levels, num_regions = student_LSChw.shape[:2]
        if num_regions == 0:
            return student_LSChw.sum(0)
        embedded_LSD = self.embed(student_LSChw.flatten(0, 1)).view(num_levels, num_regions, -1)
        scores_LS = (embedded_LSD * self.embed(teacher_SChw)).sum(-1) / self.log_temperature.exp()
        return _mixture(scores_LS.softmax(0), student_LSChw)

    def _students(self, inputs: TermInputs) -> Tensor:
        """(L, S, C, size, size): levels of equal channels are pooled and adapted together; their order is free."""
        by_width: dict[int, dict[str, Tensor]] = {}
        for level, map_BCHW in inputs.student_maps.items():
            by_width.setdefault(map_BCHW.shape[1], {})[level] = map_BCHW
        parts = [
            self._adapt(regions_on_levels(inputs, maps, self._student_strides, self.size, "student", _SAMPLES))
            for maps in by_width.values()
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _adapt(self, regions_LSChw: Tensor) -> Tensor:
        width = str(regions_LSChw.shape[2])
        if width not in self.adapters:
            return regions_LSChw
        adapted: Tensor = self.adapters[width](regions_LSChw.flatten(0, 1))
        return adapted.unflatten(0, regions_LSChw.shape[:2])


def _mixture(shares_LS: Tensor, levels_LSChw: Tensor) -> Tensor:
    """(S, C, h, w): sum over the levels of share times level."""
    levels_LShwC = levels_LSChw.permute(0, 1, 3, 4, 2)  # the order of memory, in which nothing is copied
    mixed_SX = cast(Tensor, _Mixture.apply(shares_LS, levels_LShwC.flatten(2)))  # type: ignore[no-untyped-call]
    return mixed_SX.view(levels_LShwC.shape[1:]).permute(0, 3, 1, 2)


class _Mixture(torch.autograd.Function):
    """Weighted sums over levels. autograd would write the levels' gradient region by region, and then reorder it."""

    @staticmethod
    def forward(ctx: Any, shares_LS: Tensor, levels_LSX: Tensor) -> Tensor:
        ctx.save_for_backward(shares_LS, levels_LSX)
        mixed_SX = levels_LSX[0] * shares_LS[0][:, None]
        for shares_S, level_SX in zip(shares_LS[1:], levels_LSX[1:]):
            mixed_SX.addcmul_(level_SX, shares_S[:, None])
        return mixed_SX

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        shares_LS, levels_LSX = ctx.saved_tensors
        of_mixed_SX = gradients[0].contiguous()
        of_shares, of_levels = None, None
        if ctx.needs_input_grad[0]:
            of_shares = torch.stack([(level_SX * of_mixed_SX).sum(1) for level_SX in levels_LSX])
        if ctx.needs_input_grad[1]:
            of_levels = shares_LS[:, :, None] * of_mixed_SX
        return of_shares, of_levels
