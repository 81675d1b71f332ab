"""Prototypes of a class: the few instances that span both detectors' feature spaces best.

Prototype generation (PGM) of "Distilling Object Detectors with Global Knowledge" (ECCV 2022), by coupled matching
pursuit: each step chooses the instance whose student and teacher vectors, with coefficients that are pulled towards
each other, explain most of what the instances chosen before have left over.

The error of a choice need not be built from (K, D, N) differences. Atoms have unit norm and the coefficients minimize
the quadratic, so the error is a constant minus the score that ``_scores`` computes from two (K, N) tables of inner
products, which a rank-one update carries from step to step: O(KN) a step, O(KN) memory.

Everything is in float64: near duplicates differ by less than float32 resolves, and half precision chooses other
atoms (``experiments/prototypes``). It costs twice the memory of the tables: 144 MB if all of 3000 are candidates.

Legend: N instances, K candidates, C rows of a chunk, D channels (they may differ between the spaces); a letter
before: a student's space, b teacher's space, p candidate's unit vector, i inner product with a residual, w coefficient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autokd.errors import DistillError

_CHUNK_NUMBERS = 2**20
"""Inner products held at once for the density: 8 MiB."""
_DENSITY_ROUNDING = 1e-13
"""Densities within this part of the quantile are equal to it: rounding would otherwise separate duplicates."""
_SCORE_ROUNDING = 1e-12
"""Scores within this much an instance of the best are equal to it; float64 loses far less."""


@torch.no_grad()
def select_prototypes(
    student_vectors: Tensor,
    teacher_vectors: Tensor,
    num_prototypes: int = 10,
    alpha: float = 10.0,
    density_bandwidth: float = 0.1,
    density_quantile: float = 0.4,
) -> Tensor:
    """Choose prototypes among the N instances of one class (and level).

    Global Knowledge (ECCV 2022), PGM. Nothing is drawn at random: same vectors, same rows.

    - Candidates: rows whose density reaches the quantile (linear between ranks) in both spaces. A row *at* the
      quantile counts, so that duplicates, or vectors too far apart for a density (every one is 1), stay together.
    - A row of zeros in either space has no direction and is no candidate; as an instance it explains nothing.
    - If no row reaches both quantiles, every row with a direction is a candidate.
    - Fewer candidates than ``num_prototypes``: all of them. No candidates (N = 0, or zeros only): no rows.
    - Choices equal within rounding, such as duplicates, or all choices once nothing is left to explain: the first row.

    Args:
        student_vectors, teacher_vectors: (N, D_s) and (N, D_t) of any floating type on one device; normalized here.
        num_prototypes: the most rows to choose, at least 1.
        alpha: pulls the two coefficients of an atom towards each other; 0: the spaces choose on their own.
        density_bandwidth: width of the kernel of densities, in units of 1 - cosine.
        density_quantile: quantile of the densities that a candidate reaches, 0 to 1.

    Returns:
        Rows as int64 on the vectors' device, in the order of choice, each once.

    Raises:
        DistillError: for shapes, devices or types that do not fit, non-finite vectors, and settings out of range.
    """
    _check_settings(num_prototypes, alpha, density_bandwidth, density_quantile)
    _check_vectors(student_vectors, teacher_vectors)
    device = student_vectors.device
    if len(student_vectors) == 0:
        return torch.empty(0, dtype=torch.int64, device=device)
    a_ND, b_ND = _unit_rows(student_vectors), _unit_rows(teacher_vectors)
    rows_K = _candidates(a_ND, b_ND, density_bandwidth, density_quantile)
    return rows_K[_pursue(a_ND, b_ND, rows_K, min(num_prototypes, len(rows_K)), alpha)].to(device)


def _unit_rows(vectors_ND: Tensor) -> Tensor:
    """(N, D) float64 rows of length 1; a row of zeros stays. Computed on the CPU if a device has no float64."""
    at = torch.device("cpu") if vectors_ND.device.type == "mps" else vectors_ND.device
    wide_ND = vectors_ND.to(at).to(torch.float64)
    greatest_N1 = wide_ND.abs().amax(1, keepdim=True)
    # By the greatest first: squares of very large or small numbers would leave float64.
    scaled_ND = wide_ND / torch.where(greatest_N1 > 0, greatest_N1, 1.0)
    length_N1 = torch.linalg.vector_norm(scaled_ND, dim=1, keepdim=True)
    return scaled_ND.div_(torch.where(length_N1 > 0, length_N1, 1.0))


def _candidates(a_ND: Tensor, b_ND: Tensor, bandwidth: float, quantile: float) -> Tensor:
    """(K,) rows dense enough in both spaces."""
    directed_N = a_ND.any(1) & b_ND.any(1)
    dense_N = directed_N & _reaches(_density(a_ND, bandwidth), quantile) & _reaches(_density(b_ND, bandwidth), quantile)
    chosen_N = torch.where(dense_N.any(), dense_N, directed_N)
    return chosen_N.nonzero()[:, 0]


def _density(x_ND: Tensor, bandwidth: float) -> Tensor:
    """(N,): sum_m exp(-((1 - <x_n, x_m>) / bandwidth)^2), the row itself included."""
    chunk = max(1, _CHUNK_NUMBERS // len(x_ND))
    parts = []
    for x_CD in x_ND.split(chunk):
        inner_CN = x_CD @ x_ND.T
        parts.append(inner_CN.sub_(1).div_(bandwidth).square_().neg_().exp_().sum(1))
    return torch.cat(parts)


def _reaches(density_N: Tensor, quantile: float) -> Tensor:
    """(N,) whether a density is at least the quantile of all, up to rounding.

    By sorting, since torch.quantile takes no more than 2**24 numbers.
    """
    ordered_N = density_N.sort().values
    rank = quantile * (len(density_N) - 1)
    low, high = ordered_N[math.floor(rank)], ordered_N[math.ceil(rank)]
    return density_N >= torch.lerp(low, high, rank - math.floor(rank)) * (1 - _DENSITY_ROUNDING)


def _pursue(a_ND: Tensor, b_ND: Tensor, rows_K: Tensor, num_steps: int, alpha: float) -> Tensor:
    """(num_steps,) places in ``rows_K`` that coupled matching pursuit chooses, none twice."""
    ia_KN, ib_KN = a_ND[rows_K] @ a_ND.T, b_ND[rows_K] @ b_ND.T
    free_K = torch.ones(len(rows_K), dtype=torch.bool, device=rows_K.device)
    picks: list[Tensor] = []
    for _ in range(num_steps):
        pick_1 = _best(_scores(ia_KN, ib_KN, alpha), free_K, tolerance=_SCORE_ROUNDING * len(a_ND))
        free_K[pick_1] = False
        picks.append(pick_1)
        wa_N, wb_N = _coefficients(ia_KN[pick_1][0], ib_KN[pick_1][0], alpha)
        # r^a -= p_g^a w_a takes <p_k^a, p_g^a> w_a[n] off <p_k^a, r_n^a>; the teacher's space alike.
        row_1 = rows_K[pick_1]
        ia_KN.addr_((a_ND @ a_ND[row_1][0])[rows_K], wa_N, alpha=-1)
        ib_KN.addr_((b_ND @ b_ND[row_1][0])[rows_K], wb_N, alpha=-1)
    return torch.cat(picks) if picks else rows_K[:0]


def _coefficients(ia_N: Tensor, ib_N: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Each instance's coefficients of one atom: they minimize the quadratic error."""
    common_N = alpha * (ia_N + ib_N)
    return (common_N + ia_N) / (1 + 2 * alpha), (common_N + ib_N) / (1 + 2 * alpha)


def _scores(ia_KN: Tensor, ib_KN: Tensor, alpha: float) -> Tensor:
    """(K,): how much each candidate takes off the error, sum_n [(1+alpha)(ia^2 + ib^2) + 2 alpha ia ib] / (1+2 alpha).

    The products of rows with rows are matrix products: no third table is built.
    """
    own_K = _row_products(ia_KN, ia_KN) + _row_products(ib_KN, ib_KN)
    return ((1 + alpha) * own_K + 2 * alpha * _row_products(ia_KN, ib_KN)) / (1 + 2 * alpha)


def _row_products(x_KN: Tensor, y_KN: Tensor) -> Tensor:
    return torch.bmm(x_KN[:, None, :], y_KN[:, :, None]).flatten()


def _best(score_K: Tensor, free_K: Tensor, tolerance: float) -> Tensor:
    """(1,): the first free candidate whose score is the greatest, up to rounding; nothing leaves the device."""
    score_K = score_K.masked_fill(~free_K, -math.inf)
    return (score_K >= score_K.max() - tolerance).to(torch.uint8).argmax()[None]


def _check_settings(num_prototypes: int, alpha: float, bandwidth: float, quantile: float) -> None:
    for name, value, fits, allowed in (
        ("num_prototypes", num_prototypes, num_prototypes >= 1, "1 or more"),
        ("alpha", alpha, 0 <= alpha < math.inf, "0 or more, finite"),
        ("density_bandwidth", bandwidth, 0 < bandwidth < math.inf, "more than 0, finite"),
        ("density_quantile", quantile, 0 <= quantile <= 1, "0 to 1"),
    ):
        if not fits:
            raise DistillError(f"select_prototypes: {name} is {value}; allowed: {allowed}.")


def _check_vectors(student_vectors: Tensor, teacher_vectors: Tensor) -> None:
    for side, vectors in (("student", student_vectors), ("teacher", teacher_vectors)):
        if vectors.ndim != 2 or vectors.shape[1] == 0 or not vectors.is_floating_point():
            raise DistillError(
                f"select_prototypes: {side}_vectors is {tuple(vectors.shape)} of {vectors.dtype}. "
                "Give (N, D) floating-point numbers, D at least 1: one row an instance."
            )
    if len(student_vectors) != len(teacher_vectors) or student_vectors.device != teacher_vectors.device:
        raise DistillError(
            f"select_prototypes: {len(student_vectors)} student vectors on {student_vectors.device}, but "
            f"{len(teacher_vectors)} teacher vectors on {teacher_vectors.device}. "
            "Give both of the same instances, in the same order, on one device."
        )
    for side, vectors in (("student", student_vectors), ("teacher", teacher_vectors)):
        broken_N = ~vectors.isfinite().all(1)
        if broken_N.any():
            rows = broken_N.nonzero()[:, 0].tolist()
            raise DistillError(
                f"select_prototypes: {len(rows)} of {len(vectors)} {side}_vectors hold NaN or infinity, "
                f"row {rows[0]} first. The {side} has diverged, or its region lies off the map: leave these out."
            )
