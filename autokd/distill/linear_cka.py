"""Linear CKA of rows that come in batches.

CKA(X, Y) = ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F), X and Y column-centered (Kornblith et al., arXiv:1905.00414,
section 3). Only the three products are kept, so the memory is that of C x C matrices however many rows there are.

Legend: R rows, X student's channels, Y teacher's channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from autokd.tensors import full_precision


class LinearCKA:
    """Linear CKA over batches of rows: products in float32 on their device, added up over batches in twice its digits.

    Equal to float64 within about 1e-6. float64 itself would take most cards 32 to 64 times as long.
    """

    def __init__(self) -> None:
        self._num_rows = 0
        self._products: tuple[_Total, _Total, _Total] | None = None
        self._sums: tuple[_Total, _Total] | None = None
        self._shift: tuple[Tensor, Tensor] | None = None

    def add(self, student_RX: Tensor, teacher_RY: Tensor) -> None:
        """Add rows of a batch.

        Args:
            student_RX, teacher_RY: equal numbers of rows; row r of both is the same cell.
        """
        if student_RX.shape[0] == 0:
            return
        x_RX, y_RY = full_precision(student_RX.detach()), full_precision(teacher_RY.detach())
        # A common shift changes nothing but the rounding: centering subtracts products of the order of R mean^2, which
        # float32 does not bear. Differences from a mean of the data are as exact as the data.
        if self._shift is None:
            self._shift = (x_RX.mean(0), y_RY.mean(0))
        x_RX, y_RY = (x_RX - self._shift[0]).float(), (y_RY - self._shift[1]).float()
        with _whole_float32(x_RX.device):
            products = (x_RX.T @ x_RX, y_RY.T @ y_RY, y_RY.T @ x_RX)
        self._num_rows += x_RX.shape[0]
        if self._products is None or self._sums is None:
            self._products = (_Total(products[0]), _Total(products[1]), _Total(products[2]))
            self._sums = (_Total(x_RX.sum(0)), _Total(y_RY.sum(0)))
            return
        for total, part in zip((*self._products, *self._sums), (*products, x_RX.sum(0), y_RY.sum(0))):
            total.add(part)

    def value(self) -> float:
        """Return the CKA of all rows so far; 0 if either side is constant, NaN if there was no row."""
        if self._products is None or self._sums is None:
            return math.nan
        xx, yy, yx = (total.on_host() for total in self._products)
        sum_x, sum_y = (total.on_host() for total in self._sums)
        xx = xx - np.outer(sum_x, sum_x) / self._num_rows
        yy = yy - np.outer(sum_y, sum_y) / self._num_rows
        yx = yx - np.outer(sum_y, sum_x) / self._num_rows
        scale = float(np.linalg.norm(xx) * np.linalg.norm(yy))
        if scale <= 0.0:
            return 0.0
        return min(float(np.linalg.norm(yx) ** 2) / scale, 1.0)


class _Total:
    """A sum of float32 tensors, and what its additions rounded off (Neumaier, ZAMM 54, 1974): as in twice the digits.

    Thousands of batches add up; in one float32 each addition would lose half a digit of the small ones.
    """

    def __init__(self, first: Tensor) -> None:
        self._sum, self._lost = first, torch.zeros_like(first)

    def add(self, part: Tensor) -> None:
        total = self._sum + part
        is_sum_larger = self._sum.abs() >= part.abs()
        larger, smaller = torch.where(is_sum_larger, self._sum, part), torch.where(is_sum_larger, part, self._sum)
        self._lost += (larger - total) + smaller
        self._sum = total

    def on_host(self) -> np.ndarray:
        """The sum in float64."""
        found: np.ndarray = self._sum.cpu().numpy().astype(np.float64) + self._lost.cpu().numpy()
        return found


@contextmanager
def _whole_float32(device: torch.device) -> Iterator[None]:
    """Products of float32 with all its digits: neither autocast nor TensorFloat-32, which keeps 11 bits of each."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
