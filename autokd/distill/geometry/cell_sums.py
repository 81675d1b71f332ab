"""Weighted sums over a table of cells, which the products of row and column weights of regions describe.

Legend: N regions, size x size cells of a region, T cells along an axis that a region's cell touches, K sums, R rows and
E cells that all sums read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

AxisWeights = tuple[Tensor, Tensor]
"""Cells (N, size, T) int64 along one axis of a region's map, and how much each adds; a cell may occur twice."""


@dataclass(frozen=True, eq=False)
class CellSums:
    """K = N * size * size weighted sums of rows of a table."""

    cells: Tensor
    """Numbers of rows of the table: (E,), or (K, T * T) if every sum reads equally many."""
    weights: Tensor
    """Weight of each, in the same shape."""
    offsets: Tensor | None
    """(K,): where each sum's cells begin; None if ``cells`` has two axes."""


def all_cells(rows: AxisWeights, columns: AxisWeights, first_N: Tensor, width_N: Tensor) -> CellSums:
    """Return sums over all T x T cells, whatever their weight: nothing waits for the device.

    Args:
        rows, columns: cells and weights along each axis.
        first_N: number of the table's row of the first cell of each region's map.
        width_N: columns of each region's map.
    """
    rows_NsT = first_N[:, None, None] + rows[0] * width_N[:, None, None]
    cells = rows_NsT[:, :, None, :, None] + columns[0][:, None, :, None, :]
    weights = rows[1][:, :, None, :, None] * columns[1][:, None, :, None, :]
    return CellSums(cells.flatten(3).flatten(0, 2), weights.flatten(3).flatten(0, 2), None)


def weighted_cells(rows: AxisWeights, columns: AxisWeights, first_N: Tensor, width_N: Tensor) -> CellSums:
    """Return the same sums over each cell once, without those of weight 0.

    The points of a region's cell mostly share their cells: four points a side read 8 x 8 numbers, often of 3 x 3 cells.
    Arguments as of ``all_cells``.
    """
    row_cells, row_weights, row_counts_Ns = _merged(*rows)
    column_cells, column_weights, column_counts_Ns = _merged(*columns)
    map_of_row = torch.arange(len(first_N)).repeat_interleave(row_counts_Ns.sum(1))
    row_cells = first_N[map_of_row] + row_cells * width_N[map_of_row]
    size = row_counts_Ns.shape[1]
    rows_K, first_row_K = (
        x[:, :, None].expand(-1, -1, size).flatten() for x in (row_counts_Ns, _starts(row_counts_Ns))
    )
    columns_K, first_column_K = (
        x[:, None].expand(-1, size, -1).flatten() for x in (column_counts_Ns, _starts(column_counts_Ns))
    )
    # First the R rows of all sums, then the columns of each of them: no division that tells one from the other.
    sum_R = torch.arange(len(rows_K)).repeat_interleave(rows_K)
    row_R = torch.arange(len(sum_R)) + (first_row_K - _starts(rows_K))[sum_R]
    columns_R = columns_K[sum_R]
    row_E = torch.arange(len(sum_R)).repeat_interleave(columns_R)
    column_E = torch.arange(len(row_E)) + (first_column_K[sum_R] - _starts(columns_R))[row_E]
    cells_E = row_cells[row_R][row_E] + column_cells[column_E]
    weights_E = row_weights[row_R][row_E] * column_weights[column_E]
    return CellSums(cells_E, weights_E, _starts(rows_K * columns_K))


def _merged(cells_NsT: Tensor, weights_NsT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cells with a weight and their weights, in the order of the regions' cells; the number of each, (N, size)."""
    lowest_Ns1 = cells_NsT.amin(2, keepdim=True)
    shift_NsT = cells_NsT - lowest_Ns1
    longest = int(shift_NsT.max()) + 1 if shift_NsT.numel() else 0
    dense = weights_NsT.new_zeros(*cells_NsT.shape[:2], longest).scatter_add_(2, shift_NsT, weights_NsT)
    region, part, shift = dense.nonzero(as_tuple=True)
    return lowest_Ns1[region, part, 0] + shift, dense[region, part, shift], (dense != 0).sum(2)


def _starts(counts: Tensor) -> Tensor:
    """Where each of several runs begins, if they lie one behind the other."""
    return (counts.flatten().cumsum(0) - counts.flatten()).view_as(counts)
