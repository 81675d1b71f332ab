"""Gram matrices: inner products between the channels, the samples or the cells of a map.

Legend: S samples (images, regions or patches), C channels, H x W cells, N = H * W, R rows, M columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.products import self_related
from autokd.distill.relation_matrices import as_relations, outer, vectors
from autokd.distill.term_inputs import TermInputs


class GramChannels(Transform):
    """X X' / N of each sample, X its map as (C, N): inner products of each two channels.

    Layout map -> scalar_map (S * C, 1, 1, C). N is the number of cells that count. Gatys et al., arXiv:1508.06576,
    eq. 3.
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        members, channels = features.members_SHW, features.student_SCHW.shape[1]
        student, teacher = (_gram_channels(x, members).flatten(0, 1) for x in _sides(features))
        weights_RM = None
        if members is not None:
            weights_RM = _has_cells(members)[:, None].expand(-1, channels).reshape(-1, 1).expand(-1, channels)
        return as_relations(features, student, teacher, weights_RM)


class GramSamples(Transform):
    """Z Z', Z the batch as (S, C * N): inner products of each two samples.

    Layout map -> scalar_map (S, 1, 1, S). With ``l2_cells`` and ``l2`` behind it, SP: Similarity-Preserving Knowledge
    Distillation, arXiv:1907.09682, section 3.
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        members = features.members_SHW
        student, teacher = (self_related(vectors(x, members)) for x in _sides(features))
        weights_RM = None if members is None else outer(_has_cells(members))
        return as_relations(features, student, teacher, weights_RM)


class GramCells(Transform):
    """X' X / C of each sample, X its map as (C, N): inner products of the vectors of each two cells.

    Layout map -> scalar_map (S * N, 1, 1, N). So that N x N stays small, a map larger than ``side`` x ``side`` cells
    is first averaged over whole windows, the smallest that leave at most ``side`` cells per side; a window's mean
    is over those of its cells that count. Structured knowledge distillation, arXiv:1903.04197
    (pair-wise distillation; there of unit vectors: put ``l2_channels`` before it).
    """

    def __init__(self, context: BuildContext, side: int) -> None:
        super().__init__(context)
        self.side = side

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        members = features.members_SHW
        student, teacher = (self._gram_cells(x, members).flatten(0, 1) for x in _sides(features))
        weights_RM = None
        if members is not None:
            counts_SN = (self._pooled(members[:, None]) > 0).flatten(1).to(members.dtype)
            weights_RM = (counts_SN[:, :, None] * counts_SN[:, None]).flatten(0, 1)
        return as_relations(features, student, teacher, weights_RM)

    def _gram_cells(self, x_SCHW: Tensor, members_SHW: Tensor | None) -> Tensor:
        """(S, N, N)."""
        if members_SHW is None:
            x_SCN = self._pooled(x_SCHW).flatten(2)
        else:
            share_S1HW = self._pooled(members_SHW[:, None])
            inside_SCHW = self._pooled(x_SCHW * members_SHW[:, None])
            x_SCN = (inside_SCHW / torch.where(share_S1HW > 0, share_S1HW, 1.0)).flatten(2)
        return self_related(x_SCN.transpose(1, 2)) / x_SCHW.shape[1]

    def _pooled(self, x_SCHW: Tensor) -> Tensor:
        window = [-(-length // self.side) for length in x_SCHW.shape[2:]]
        return x_SCHW if window == [1, 1] else functional.avg_pool2d(x_SCHW, window, ceil_mode=True)


def _sides(features: FeaturePair) -> tuple[Tensor, Tensor]:
    return features.student_SCHW, features.teacher_SCHW


def _has_cells(members_SHW: Tensor) -> Tensor:
    """(S,): 1 for the samples that have a cell that counts."""
    return (members_SHW > 0).flatten(1).any(1).to(members_SHW.dtype)


def _gram_channels(x_SCHW: Tensor, members_SHW: Tensor | None) -> Tensor:
    """(S, C, C)."""
    if members_SHW is None:
        return self_related(x_SCHW.flatten(2)) / (x_SCHW.shape[2] * x_SCHW.shape[3])
    count_S11 = members_SHW.sum((1, 2)).clamp_min(1)[:, None, None]
    return self_related((x_SCHW * members_SHW[:, None]).flatten(2)) / count_S11
