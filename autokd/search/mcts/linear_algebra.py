"""Linear algebra in blocks so small that BLAS stays on the calling thread.

During a search every core is busy with training. A BLAS call large enough to wake its threads then waits for
them: a Cholesky factor of 128 x 128 took 110 ms instead of 0.1 ms (``experiments/sampler_overhead``). OpenBLAS
keeps a product of fewer than about 64^3 multiplications on one thread.
"""

from __future__ import annotations

import numpy as np

BLOCK = 48


def product(a_NF: np.ndarray, b_MF: np.ndarray) -> np.ndarray:
    """a b', (N, M)."""
    out = np.zeros((len(a_NF), len(b_MF)))
    for rows in _blocks(len(a_NF)):
        for columns in _blocks(len(b_MF)):
            for inner in _blocks(a_NF.shape[1]):
                out[rows, columns] += a_NF[rows, inner] @ b_MF[columns, inner].T
    return out


def cholesky(matrix_NN: np.ndarray) -> np.ndarray:
    """The lower factor L of a positive definite L L'; LinAlgError if it is not."""
    lower = np.zeros_like(matrix_NN)
    blocks = _blocks(len(matrix_NN))
    for j, columns in enumerate(blocks):
        done = slice(0, columns.start)
        for i, rows in enumerate(blocks[j:], start=j):
            rest = matrix_NN[rows, columns] - product(lower[rows, done], lower[columns, done])
            if i == j:
                lower[rows, columns] = np.linalg.cholesky(rest)
                inverse = np.linalg.inv(lower[rows, columns])
            else:
                lower[rows, columns] = rest @ inverse.T
    return lower


def solve_lower(lower_NN: np.ndarray, right_NK: np.ndarray) -> np.ndarray:
    """x with L x = right, (N, K)."""
    out = np.zeros_like(right_NK)
    for rows in _blocks(len(lower_NN)):
        done = slice(0, rows.start)
        rest = right_NK[rows] - product(lower_NN[rows, done], out[done].T)
        out[rows] = np.linalg.solve(lower_NN[rows, rows], rest)
    return out


def _blocks(size: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]
