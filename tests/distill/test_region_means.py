"""Regions pooled over all that they cover, against the integral written out in NumPy and against torchvision.

Legend: B images, M boxes of an image, C channels, H x W cells.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision

from autokd import DetectorOutputs
from autokd.distill import build_distiller
from autokd.distill.geometry.region_means import region_means
from autokd.presets import load_preset
from tests.support import distill_cases as cases
from tests.support.numpy_formulas import region_cells

BOXES_BM4 = torch.tensor(
    [[[3, 4, 30, 20], [0, 0, 72, 56], [5, 5, 9, 7]], [[60.5, 50, 72, 56], [0, 0, 8, 8], [10, 1, 76, 60]]],
    dtype=torch.float64,
)
"""On a map of 7 x 9 cells of 8 px; the last box reaches half a cell beyond it."""


def random_map(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, 7, 9, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize("size", [1, 4, 7])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_regions_cell_is_the_mean_of_the_interpolated_map_over_it(size, dtype, tolerance):
    map_BCHW = random_map(dtype)
    found = region_means(map_BCHW, BOXES_BM4.to(dtype), 8, size)
    pixels = map_BCHW.detach().double().numpy()
    want = [region_cells(pixels[image], box, 8, size) for image in range(2) for box in BOXES_BM4[image]]
    np.testing.assert_allclose(found.detach().double().numpy(), np.array(want), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [1, 4, 7])
def test_roi_align_of_ever_more_points_comes_to_the_same_value_and_gradient(size):
    map_BCHW = random_map()
    rois_R5 = torch.cat([torch.tensor([0, 0, 0, 1, 1, 1])[:, None].double(), BOXES_BM4.flatten(0, 1)], dim=1)
    want = torchvision.ops.roi_align(map_BCHW, rois_R5, size, 1 / 8, sampling_ratio=128, aligned=True)
    found = region_means(map_BCHW, BOXES_BM4, 8, size)
    torch.testing.assert_close(found, want, rtol=0, atol=5e-4)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    want_gradient, found_gradient = (torch.autograd.grad((x * weights).sum(), map_BCHW)[0] for x in (want, found))
    torch.testing.assert_close(found_gradient, want_gradient, rtol=0, atol=1e-3)


def test_a_box_without_area_is_the_value_at_its_place_and_a_map_of_one_cell_is_that_cell():
    map_BCHW = random_map()
    point = torch.tensor([[[20.0, 28, 20, 28]]], dtype=torch.float64)  # the center of cell (3, 2)
    found = region_means(map_BCHW[:1], point, 8, 2)
    want = map_BCHW[0, :, 3, 2][:, None, None].expand(3, 2, 2)
    torch.testing.assert_close(found[0], want, rtol=0, atol=2e-3)
    single = region_means(map_BCHW[:, :, :1, :1], BOXES_BM4, 8, 3)
    torch.testing.assert_close(single.view(2, 3, 3, 9), map_BCHW[:, None, :, :1, 0].expand(2, 3, 3, 9))


def pyramid(seed):
    """One map of 80 x 80 cells of 8 px."""
    return cases.outputs(4, 1, seed, levels={"p3": ((80, 80), 8)}, size_px=(640, 640))


def test_an_instance_reads_every_cell_that_its_box_covers():
    """A box of 400 px at stride 8 covers 2,500 cells; those beside them are read by interpolation alone."""
    student = pyramid(0)
    source = cases.operator("source", "instance", size=1)
    (piece,) = source(cases.inputs_of(student, pyramid(1), cases.boxes([[100, 100, 500, 500]])))
    piece.student_SCHW.sum().backward()
    gradient_HW = student.pyramid["p3"].grad.abs().sum((0, 1))
    assert (gradient_HW[12:63, 12:63] > 0).all()  # pixels 96 to 504
    inner = gradient_HW[14:61, 14:61]
    assert torch.allclose(inner, torch.full_like(inner, 4 / 2500)), "each cell of it counts the same"
    assert (gradient_HW > 0).sum() <= 53**2


@pytest.mark.parametrize("name", ["rkd", "mlkd"])
def test_relations_are_between_the_mean_vectors_of_regions(name):
    """Of large boxes whose edges lie between cells: relations of plain means, up to the cells at the edges."""
    corners = [[8, 8, 408, 408], [200, 16, 632, 600], [40, 240, 600, 632], [0, 0, 320, 560]]
    student, teacher = pyramid(0), pyramid(1)
    distiller = build_distiller(load_preset(name), student, teacher, num_classes=3)
    found = structure(distiller(student, teacher, cases.boxes(corners)))
    levels = [x.pyramid["p3"].detach().double().numpy()[0] for x in (student, teacher)]
    vectors = [
        np.array([x[:, y1 // 8 : y2 // 8, x1 // 8 : x2 // 8].mean((1, 2)) for x1, y1, x2, y2 in corners])
        for x in levels
    ]
    lengths = [np.linalg.norm(v[:, None] - v[None], axis=-1) for v in vectors]
    relative = [length / length[length > 0].mean() for length in lengths]
    gap = relative[0] - relative[1]
    huber = np.where(np.abs(gap) < 1, gap**2 / 2, np.abs(gap) - 0.5).sum()
    want = 25 * huber / 12 if name == "rkd" else 100 * huber / 4
    assert found == pytest.approx(want, rel=0.1)


def structure(result) -> float:
    (value,) = [value.weighted.item() for name, value in result.terms.items() if "pair_distances" in name]
    return value


def test_regions_of_a_batch_without_boxes_are_none():
    outputs = DetectorOutputs({"p3": torch.randn(2, 3, 4, 4)}, {"p3": 8}, image_size_px=(32, 32))
    found = region_means(outputs.pyramid["p3"], torch.zeros(2, 0, 4), 8, 3)
    assert found.shape == (0, 3, 3, 3)
