"""Operators from the founding papers against NumPy written from their formulas, in float64.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support import distill_cases as cases

RANDOM = np.random.default_rng(43)
STUDENT, TEACHER = RANDOM.normal(size=(2, 4, 3, 2, 2))


def softmax(x: np.ndarray) -> np.ndarray:
    shares = np.exp(x - x.max())
    return shares / shares.sum()


def divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    return float((teacher * np.log(teacher / student)).sum())


# ----------------------------------------------------------------------------------------- affinity


def similarities(x_SCHW: np.ndarray) -> np.ndarray:
    directions = x_SCHW / np.linalg.norm(x_SCHW, axis=1, keepdims=True)
    found = np.zeros((len(x_SCHW), len(x_SCHW)))
    for i, j in np.ndindex(found.shape):
        found[i, j] = np.mean([directions[i, :, r, c] @ directions[j, :, r, c] for r, c in np.ndindex(2, 2)])
    return found


@pytest.mark.parametrize("num_present", [4, 3])
def test_kl_of_affinities_is_the_mean_over_rows_and_columns_of_the_matrix_of_similarities(num_present):
    temperature, divergences = 0.3, []
    of_teacher, of_student = (similarities(x[:num_present]) / temperature for x in (TEACHER, STUDENT))
    for matrices in ((of_teacher, of_student), (of_teacher.T, of_student.T)):
        for i in range(num_present):
            others = [j for j in range(num_present) if j != i]
            divergences.append(divergence(*(softmax(matrix[i][others]) for matrix in matrices)))
    present = torch.arange(4)[:, None, None].expand(4, 2, 2) < num_present
    given = cases.piece(torch.from_numpy(STUDENT), torch.from_numpy(TEACHER), present.double(), "regions")
    changed = cases.operator("transform", "affinity", temperature=temperature)(given, cases.NO_INPUTS)
    found = cases.operator("distance", "kl")(changed, cases.NO_INPUTS)
    np.testing.assert_allclose(found.item(), temperature**2 * np.mean(divergences), rtol=1e-9)


GOLDEN = {"affinity"}
