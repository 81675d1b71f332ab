"""Linear algebra in blocks so small that BLAS stays on the calling thread.

During a search every core is busy with training. A BLAS call large enough to wake its thread pool then waits for
threads that have no core: a Cholesky factor of 128 x 128 took 110 ms instead of 0.1 ms (AutoKD's
``experiments/sampler_overhead``). OpenBLAS keeps a product of fewer than about 64^3 multiplications on one thread.

Legend: N, M rows, F columns, K right-hand sides.
"""

from __future__ import annotations

import numpy as np

BLOCK = 48
"""Rows and columns of a block; 48^3 multiplications are below the threshold of 64^3."""


def product(a_NF: np.ndarray, b_MF: np.ndarray) -> np.ndarray:
    """Return a b', shape (N, M)."""
    out = np.zeros((len(a_NF), len(b_MF)))
    for rows in _blocks(len(a_NF)):
        for columns in _blocks(len(b_MF)):
            for inner in _blocks(a_NF.shape[1]):
                out[rows, columns] += a_NF[rows, inner] @ b_MF[columns, inner].T
    return out


def cholesky(matrix_NN: np.ndarray) -> np.ndarray:
    """Return the lower factor L of a positive definite matrix L L'.

    Args:
        matrix_NN: the matrix.

    Returns:
        Shape (N, N), zero above the diagonal.

    Raises:
        numpy.linalg.LinAlgError: if the matrix is not positive definite.
    """
    lower = np.zeros_like(matrix_NN)
    blocks = _blocks(len(matrix_NN))
    for j, columns in enumerate(blocks):
        done = slice(0, columns.start)
        for i, rows in enumerate(blocks[j:], start=j):
            rest = matrix_NN[rows, columns] - product(lower[rows, done], lower[columns, done])
            if i == j:
                lower[rows, columns] = np.linalg.cholesky(rest)
                # The diagonal block comes first in its column, so the blocks below it may use its inverse.
                inverse = np.linalg.inv(lower[rows, columns])
            else:
                lower[rows, columns] = rest @ inverse.T
    return lower


def solve_lower(lower_NN: np.ndarray, right_NK: np.ndarray) -> np.ndarray:
    """Return x with L x = right, shape (N, K), by forward substitution over blocks."""
    out = np.zeros_like(right_NK)
    for rows in _blocks(len(lower_NN)):
        done = slice(0, rows.start)
        rest = right_NK[rows] - product(lower_NN[rows, done], out[done].T)
        out[rows] = np.linalg.solve(lower_NN[rows, rows], rest)
    return out


def _blocks(size: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]
