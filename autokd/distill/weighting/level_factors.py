"""Training-free factors that distribute a term's weight over its levels, measured during training.

gap: in proportion to the representation gap 1 - CKA(student, teacher) of the level, so that the level that differs
most weighs most. gradient: in inverse proportion to the norm of the level's gradient on the student's taps, so that
each level has the same gradient norm. Factors have mean 1. Auto-KD, ICCV 2023 (weights from statistics, not training).

Legend: P feature pairs of a term (its levels), S samples, C channels, H x W cells, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.linear_cka import LinearCKA
from autokd.distill.weighting.measured import LEAST_GAP, MeasuredFactors, inverse_gradient_norms


class LevelFactors(MeasuredFactors):
    """The factors of one term's feature pairs, 1 on average."""

    def __init__(self, kind: Literal["gap", "gradient"], num_pairs: int) -> None:
        """Begin with factors of 1.

        Args:
            kind: the statistic to which the factors are proportional; see the head of this module.
            num_pairs: feature pairs that the term's source gives.
        """
        super().__init__([1.0] * num_pairs, least=LEAST_GAP if kind == "gap" else 0.0)
        self.kind = kind

    def measure(self, pairs: Sequence[FeaturePair], values: Sequence[Tensor], taps: Sequence[Tensor]) -> None:
        """Follow this batch.

        Args:
            pairs: feature pairs as the source gave them.
            values: the term's value on each pair, scalars with their graph.
            taps: the student's maps, in float32.
        """
        self.follow(
            [1.0 - _cka(pair) for pair in pairs] if self.kind == "gap" else inverse_gradient_norms(values, taps)
        )

    def normalized(self, measured_P: Tensor, is_valid_P: Tensor) -> Tensor:
        # Divided twice: what could not be measured gets 1, the mean of the others, and then changes no ratio of theirs.
        measured_P = torch.where(is_valid_P, measured_P / measured_P[is_valid_P].mean(), 1.0)
        return measured_P / measured_P.mean()


def _cka(pair: FeaturePair) -> float:
    cka = LinearCKA()
    members = pair.members_SHW
    cka.add(*(_rows(x_SCHW, members) for x_SCHW in (pair.student_SCHW, pair.teacher_SCHW)))
    return cka.value()


def _rows(x_SCHW: Tensor, members_SHW: Tensor | None) -> Tensor:
    rows_RC = x_SCHW.detach().permute(0, 2, 3, 1).flatten(0, 2)
    return rows_RC if members_SHW is None else rows_RC[members_SHW.flatten() > 0]
