"""How the levels of a term share its weight: training-free factors, measured on the way.

gap: in proportion to the representation gap 1 - CKA(student, teacher) of the level, so that what differs most is
taught most. gradient: in inverse proportion to the norm of the level's gradient on the student's taps, so that
each level pulls equally. Factors have mean 1. Auto-KD, ICCV 2023 (weights from statistics, not from training).

Legend: P feature pairs of a term (its levels), S samples, C channels, H x W cells, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.linear_cka import LinearCKA

_RATE = 0.5
"""Part of the newest measurement in the moving mean."""
_LEAST_GAP = 0.01
"""A level that agrees entirely is still taught a little."""


class LayerFactors(nn.Module):
    """The factors of one term's pieces, as buffers: they survive checkpoints and are never differentiated."""

    factors_P: Tensor
    was_measured: Tensor

    def __init__(self, kind: Literal["gap", "gradient"], num_pieces: int) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("factors_P", torch.ones(num_pieces))
        self.register_buffer("was_measured", torch.zeros(()))

    @torch.no_grad()
    def measure(self, pieces: Sequence[FeaturePair], values: Sequence[Tensor], taps: Sequence[Tensor]) -> None:
        """Follow this batch. pieces: as the source gave them. values: the term's value on each. taps: the student's."""
        found = _gaps(pieces) if self.kind == "gap" else _inverse_norms(values, taps)
        measured_P = torch.stack([torch.as_tensor(value, dtype=torch.float32) for value in found]).to(self.factors_P)
        is_valid = measured_P.isfinite() & (measured_P > 0)
        if not bool(is_valid.any()):
            return
        mean = measured_P[is_valid].mean()
        measured_P = torch.where(is_valid, measured_P / mean, 1.0)
        rate = torch.where(self.was_measured > 0, _RATE, 1.0)
        self.factors_P.lerp_(measured_P / measured_P.mean(), rate)
        self.was_measured.fill_(1.0)


def _gaps(pieces: Sequence[FeaturePair]) -> list[float]:
    return [max(1.0 - _cka(piece), _LEAST_GAP) for piece in pieces]


def _cka(piece: FeaturePair) -> float:
    cka = LinearCKA()
    members = piece.members_SHW
    cka.add(*(_rows(x_SCHW, members) for x_SCHW in (piece.student_SCHW, piece.teacher_SCHW)))
    return cka.value()


def _rows(x_SCHW: Tensor, members_SHW: Tensor | None) -> Tensor:
    rows_RC = x_SCHW.detach().permute(0, 2, 3, 1).flatten(0, 2)
    return rows_RC if members_SHW is None else rows_RC[members_SHW.flatten() > 0]


def _inverse_norms(values: Sequence[Tensor], taps: Sequence[Tensor]) -> list[Tensor | float]:
    inverses: list[Tensor | float] = []
    for value in values:
        if not value.requires_grad:
            inverses.append(0.0)
            continue
        found = torch.autograd.grad(value, taps, retain_graph=True, allow_unused=True)
        norms = [torch.linalg.vector_norm(gradient) for gradient in found if gradient is not None]
        inverses.append(1.0 / torch.linalg.vector_norm(torch.stack(norms)) if norms else 0.0)
    return inverses
