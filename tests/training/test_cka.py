"""Linear CKA against the formula on the stacked matrices (Kornblith et al., arXiv:1905.00414, eq. 5)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autokd.detector_outputs import DetectorOutputs
from autokd.errors import DistillError
from autokd.training.measure.cka import LinearCKA, PyramidCKA

ROUNDING = 1e-6
"""Products of rows are in float32."""


def numpy_cka(x: np.ndarray, y: np.ndarray) -> float:
    """By the Gram matrices of the rows, a route that the code under test does not take."""
    x, y = x - x.mean(0), y - y.mean(0)
    gram_x, gram_y = x @ x.T, y @ y.T
    return float((gram_x * gram_y).sum() / math.sqrt((gram_x**2).sum() * (gram_y**2).sum()))


def cka_of(x: np.ndarray, y: np.ndarray, batch: int = 1000) -> float:
    cka = LinearCKA()
    for start in range(0, len(x), batch):
        cka.add(torch.from_numpy(x[start : start + batch]), torch.from_numpy(y[start : start + batch]))
    return cka.value()


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 5)) * [1, 2, 0.1, 3, 1] + 7
    y = x @ rng.normal(size=(5, 9)) + rng.normal(size=(120, 9)) * 2 - 30
    return x, y


@pytest.mark.parametrize("batch", [1, 7, 120])
def test_cka_equals_the_formula_on_the_stacked_matrix(rows, batch):
    assert cka_of(*rows, batch=batch) == pytest.approx(numpy_cka(*rows), abs=ROUNDING)


def test_cka_is_one_between_a_matrix_and_itself_turned_scaled_and_shifted(rows):
    x, _ = rows
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
    assert cka_of(x, x @ turn * 4.0 + 100) == pytest.approx(1.0, abs=ROUNDING)


def test_cka_sees_a_change_of_one_channels_scale(rows):
    x, _ = rows
    assert cka_of(x, x * [1, 1, 1, 10, 1]) < 0.99


def test_cka_centers_exactly_where_the_means_dwarf_the_deviations():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(200, 4)), rng.normal(size=(200, 4))
    assert cka_of(x + 1e5, y - 1e6, batch=16) == pytest.approx(numpy_cka(x, y), abs=1e-7)


@pytest.mark.parametrize("mean", [0.0, 10.0, 1000.0])
@pytest.mark.parametrize("deviation", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("likeness", [0.0, 0.5, 0.99])
def test_cka_of_many_float32_rows_is_that_of_float64(mean, deviation, likeness):
    rng = np.random.default_rng(4)
    base, other = rng.normal(size=(2, 6000, 8)) * deviation
    x = (base + mean * rng.normal(size=8)).astype(np.float32)
    y = (likeness * base + (1 - likeness) * other + mean * rng.normal(size=8)).astype(np.float32)
    centered = [side.astype(np.float64) - side.astype(np.float64).mean(0) for side in (x, y)]
    products = [np.linalg.norm(a.T @ b) for a, b in (centered, centered[:1] * 2, centered[1:] * 2)]
    want = products[0] ** 2 / (products[1] * products[2])
    assert cka_of(x, y, batch=50) == pytest.approx(want, abs=ROUNDING)


def test_cka_takes_no_half_precision_from_autocast(rows):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cka_of(*(side.astype(np.float32) for side in rows))
    assert found == pytest.approx(numpy_cka(*rows), abs=ROUNDING)


def test_cka_is_zero_where_one_side_is_constant_and_nan_without_rows(rows):
    x, _ = rows
    assert cka_of(x, np.ones((120, 3))) == 0.0
    assert math.isnan(LinearCKA().value())


def outputs_of(maps: dict[str, np.ndarray]) -> DetectorOutputs:
    strides = {level: 8 * 2**i for i, level in enumerate(maps)}
    return DetectorOutputs({k: torch.from_numpy(v).float() for k, v in maps.items()}, strides)


def test_pyramid_cka_is_the_mean_over_shared_levels_with_cells_as_rows():
    rng = np.random.default_rng(3)
    student = {
        "p3": rng.normal(size=(2, 3, 4, 6)),
        "p4": rng.normal(size=(2, 3, 2, 3)),
        "p5": rng.normal(size=(2, 3, 1, 2)),
    }
    teacher = {"p3": rng.normal(size=(2, 5, 4, 6)), "p4": rng.normal(size=(2, 5, 2, 3))}
    cka = PyramidCKA()
    cka.add(outputs_of(student), outputs_of(teacher), [])

    def stacked(maps: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [maps[b, :, i, j][None] for b in range(2) for i in range(maps.shape[2]) for j in range(maps.shape[3])]
        )

    expected = {level: numpy_cka(stacked(student[level]), stacked(teacher[level])) for level in ("p3", "p4")}
    assert cka.levels() == pytest.approx(expected, abs=1e-6)
    assert cka.value() == pytest.approx(np.mean(list(expected.values())), abs=1e-6)


def test_instance_rows_are_the_means_over_boxes():
    rng = np.random.default_rng(4)
    student, teacher = rng.normal(size=(1, 3, 4, 4)), rng.normal(size=(1, 2, 4, 4))
    # One sample in the middle of each bin: a box of two by two cells is the mean over its four centers' blend.
    boxes = torch.tensor([[0, 0, 8, 8], [8, 8, 16, 16], [16, 0, 24, 8], [24, 24, 32, 32]], dtype=torch.float32)
    targets = [{"boxes": boxes, "labels": torch.zeros(4, dtype=torch.int64)}]
    cka = PyramidCKA("instances")
    cka.add(outputs_of({"p3": student}), outputs_of({"p3": teacher}), targets)
    cells = [(0, 0), (1, 1), (0, 2), (3, 3)]
    expected = numpy_cka(
        np.stack([student[0, :, i, j] for i, j in cells]), np.stack([teacher[0, :, i, j] for i, j in cells])
    )
    assert cka.value() == pytest.approx(expected, abs=1e-5)


def test_pyramids_without_a_common_stride_are_refused():
    student = DetectorOutputs({"p3": torch.ones(1, 2, 2, 2)}, {"p3": 8})
    teacher = DetectorOutputs({"p2": torch.ones(1, 2, 4, 4)}, {"p2": 4})
    with pytest.raises(DistillError, match="stride"):
        PyramidCKA().add(student, teacher, [])
