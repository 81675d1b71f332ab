"""Weighted sums over a table of cells, against loops over every region, cell and number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autokd.distill.geometry.cell_sums import all_cells, weighted_cells

NUM_CELLS = 40
FIRST, WIDTH = torch.tensor([0, 20, 5]), torch.tensor([5, 4, 5])


def axis(seed, length):
    """Cells and weights of 3 regions of 2 cells: in any order, some twice, some without weight."""
    random = np.random.default_rng(seed)
    cells, weights = random.integers(0, length, (3, 2, 6)), random.random((3, 2, 6))
    weights[random.random((3, 2, 6)) < 0.3] = 0.0
    weights[1, 0] = 0.0  # a region's cell beyond the map
    return torch.from_numpy(cells), torch.from_numpy(weights)


@pytest.mark.parametrize("form", [all_cells, weighted_cells])
def test_sums_equal_loops_over_rows_and_columns(form):
    rows, columns = axis(0, 4), axis(1, 4)
    table_XC = torch.from_numpy(np.random.default_rng(2).random((NUM_CELLS, 3)))
    sums = form(rows, columns, FIRST, WIDTH)
    found = torch.nn.functional.embedding_bag(
        sums.cells, table_XC, sums.offsets, mode="sum", per_sample_weights=sums.weights
    )
    want = np.zeros((3, 2, 2, 3))
    for region, y, x, i, j in np.ndindex(3, 2, 2, 6, 6):
        cell = FIRST[region] + rows[0][region, y, i] * WIDTH[region] + columns[0][region, x, j]
        want[region, y, x] += (rows[1][region, y, i] * columns[1][region, x, j] * table_XC[cell]).numpy()
    np.testing.assert_allclose(found.numpy(), want.reshape(-1, 3), rtol=1e-12, atol=1e-14)


def test_a_cell_is_read_once_and_only_if_it_has_a_weight():
    rows = torch.tensor([[[3, 2, 3]]]), torch.tensor([[[0.25, 0.0, 0.75]]])
    columns = torch.tensor([[[1, 0, 1, 0]]]), torch.tensor([[[0.5, 0.1, 0.3, 0.1]]])
    sums = weighted_cells(rows, columns, torch.tensor([10]), torch.tensor([7]))
    assert sums.cells.tolist() == [10 + 3 * 7, 10 + 3 * 7 + 1]
    torch.testing.assert_close(sums.weights, torch.tensor([0.2, 0.8]))


def test_no_regions_make_no_sums():
    nothing = torch.zeros(0, 7, 8, dtype=torch.int64), torch.zeros(0, 7, 8)
    none = torch.zeros(0, dtype=torch.int64)
    assert weighted_cells(nothing, nothing, none, none).cells.shape == (0,)
