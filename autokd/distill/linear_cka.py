"""Linear CKA of rows that come in batches.

CKA(X, Y) = ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F), X and Y column-centered (Kornblith et al., arXiv:1905.00414,
section 3). Only the three products are kept, so the memory is that of C x C matrices however many rows there are.

Legend: R rows, X student's channels, Y teacher's channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class LinearCKA:
    """Linear CKA over batches of rows, centered exactly, accumulated in float64."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._products: tuple[Tensor, Tensor, Tensor] | None = None
        self._sums: tuple[Tensor, Tensor] | None = None
        self._shift: tuple[Tensor, Tensor] | None = None

    def add(self, student_RX: Tensor, teacher_RY: Tensor) -> None:
        """Add rows of a batch.

        Args:
            student_RX, teacher_RY: equal numbers of rows; row r of both is the same cell.
        """
        if student_RX.shape[0] == 0:
            return
        x_RX, y_RY = student_RX.detach().double(), teacher_RY.detach().double()
        # A common shift changes nothing but the rounding: centering subtracts products of the order of R mean^2.
        if self._shift is None:
            self._shift = (x_RX.mean(0), y_RY.mean(0))
        x_RX, y_RY = x_RX - self._shift[0], y_RY - self._shift[1]
        products = (x_RX.T @ x_RX, y_RY.T @ y_RY, y_RY.T @ x_RX)
        sums = (x_RX.sum(0), y_RY.sum(0))
        self._num_rows += x_RX.shape[0]
        if self._products is None or self._sums is None:
            self._products, self._sums = products, sums
            return
        for total, part in zip((*self._products, *self._sums), (*products, *sums)):
            total += part

    def value(self) -> float:
        """Return the CKA of all rows so far; 0 if either side is constant, NaN if there was no row."""
        if self._products is None or self._sums is None:
            return math.nan
        xx, yy, yx = self._products
        sum_x, sum_y = self._sums
        xx = xx - torch.outer(sum_x, sum_x) / self._num_rows
        yy = yy - torch.outer(sum_y, sum_y) / self._num_rows
        yx = yx - torch.outer(sum_y, sum_x) / self._num_rows
        scale = float(torch.linalg.matrix_norm(xx) * torch.linalg.matrix_norm(yy))
        if scale <= 0.0:
            return 0.0
        return float(torch.linalg.matrix_norm(yx) ** 2) / scale
