"""Boxes as masks, at the size that the map has at the moment, against masks written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.regions import Boxes, Inside, Outside
from autokd.errors import DistillError
from tests.support import distill_cases as cases

CPU = torch.device("cpu")


def mask_of(rows: str) -> Tensor:
    return torch.tensor([[float(cell == "#") for cell in row] for row in rows.split()])


def inside(grid: Grid, *rows: list[float], stride: int = 8, size_px: tuple[int, int] = (64, 64)) -> Tensor:
    return Inside(Boxes(cases.boxes(list(rows)), 1, size_px, CPU), stride).weights_SHW(grid)


def test_a_cell_counts_if_a_box_covers_its_center():
    found = inside(Grid(6, 6), [8, 16, 28, 32])  # columns 1..3.5: the center of column 3 lies on the edge, outside
    assert torch.equal(found[0], mask_of("...... ...... .##... .##... ...... ......"))
    found = inside(Grid(6, 6), [8, 16, 28.1, 32])
    assert torch.equal(found[0], mask_of("...... ...... .###.. .###.. ...... ......"))


def test_a_tiny_box_covers_the_cell_of_its_center():
    assert torch.equal(inside(Grid(3, 3), [9, 17, 10, 18])[0], mask_of("... ... .#."))
    assert torch.equal(inside(Grid(3, 3), [9, 9, 9, 9])[0], mask_of("... .#. ..."))


def test_a_thin_box_covers_its_whole_length():
    assert torch.equal(inside(Grid(3, 3), [9, 0, 10, 24])[0], mask_of(".#. .#. .#."))


def test_a_box_outside_the_image_covers_nothing_and_one_across_the_edge_its_visible_part():
    assert not inside(Grid(8, 8), [-20, -20, -1, -1], [64, 0, 80, 20], [float("nan"), 0, 9, 9], [30, 30, 10, 10]).any()
    found = inside(Grid(8, 8), [-100, -100, 12.5, 4.5])
    assert found[0].sum() == 2
    assert found[0, 0, :2].all()


def test_a_box_beyond_the_last_cell_of_a_map_rounded_down_covers_that_cell():
    found = inside(Grid(1, 1), [50, 50, 60, 60], stride=48)
    assert found.item() == 1


def test_regions_of_several_images_are_their_own():
    boxes = Boxes(cases.boxes([[0, 0, 8, 8]], [], [[8, 8, 16, 16], [0, 0, 4, 4]]), 3, (16, 16), CPU)
    found = Inside(boxes, 8).weights_SHW(Grid(2, 2))
    assert torch.equal(found, torch.stack([mask_of("#. .."), mask_of(".. .."), mask_of("#. .#")]))
    assert torch.equal(Outside(boxes, 8).weights_SHW(Grid(2, 2)), 1 - found)


def test_after_max_pool_the_mask_is_made_anew_at_the_new_size():
    box = [16, 16, 48, 32]
    before, after = inside(Grid(8, 8), box), inside(Grid(8, 8).pooled(2), box)
    assert torch.equal(before[0], mask_of("........ ........ ..####.. ..####.. " + "........ " * 4))
    assert torch.equal(after[0], mask_of(".... .##. .... ...."))
    # A mask of the size before, read with the size after, would lie a quarter of the image away.
    small = [20, 20, 22, 22]
    assert torch.equal(inside(Grid(8, 8).pooled(2), small)[0], mask_of(".... .#.. .... ...."))


def test_after_max_pool_the_last_cell_of_an_odd_map_is_the_half_window_that_it_is():
    grid = Grid(5, 5).pooled(2)  # rows 0-1, 2-3, 4
    found = inside(grid, [0, 34, 40, 40], size_px=(40, 40))  # its center, row 4.6, lies in the last cell
    assert torch.equal(found[0], mask_of("... ... ###"))


def test_patches_cut_the_mask_as_they_cut_the_map():
    whole = inside(Grid(4, 4), [0, 0, 24, 16])
    patches = inside(Grid(4, 4).cut(2), [0, 0, 24, 16])
    assert torch.equal(whole[0], mask_of("###. ###. .... ...."))
    assert torch.equal(patches, torch.stack([mask_of(rows) for rows in ("## ##", "#. #.", ".. ..", ".. ..")]))


def test_the_padding_of_uneven_patches_is_neither_inside_nor_outside():
    grid = Grid(5, 4).cut(2)  # rows 0-1 and 2-4; the upper patches are padded by a row
    boxes = Boxes(cases.boxes([[0, 0, 32, 40]]), 1, (40, 32), CPU)
    found = Inside(boxes, 8).weights_SHW(grid)
    assert torch.equal(found[0], mask_of("## ## .."))
    assert torch.equal(found[2], mask_of("## ## ##"))
    assert Outside(boxes, 8).weights_SHW(grid).sum() == 0
    assert Outside(Boxes(cases.boxes([]), 1, (40, 32), CPU), 8).weights_SHW(grid).sum() == 20


@pytest.mark.parametrize("steps", [("cut", "pooled"), ("pooled", "cut"), ("cut", "cut"), ("cut", "cut", "pooled")])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (12, 9), (3, 2), (1, 1)])
def test_mask_and_map_are_cut_and_pooled_alike(steps, size):
    """Send the mask itself through the steps as a map: where a pooled cell is covered wholly, both agree."""
    height, width = size
    rows = [[0, 0, 8 * ((width + 1) // 2), 8 * height]]
    outputs = cases.outputs(1, 1, levels={"p3": (size, 8)}, size_px=(8 * height, 8 * width))
    inputs = cases.inputs_of(outputs, outputs, cases.boxes(rows))
    (features,) = cases.operator("source", "foreground")(inputs)
    mask = features.weights_SHW[:, None]
    features = features.with_maps(mask, mask)
    for step in steps:
        name, params = ("local_patches", {"grid": 2}) if step == "cut" else ("max_pool", {"window": 2})
        features = cases.operator("transform", name, **params)(features, inputs)
    carried, made = features.student_SCHW[:, 0], features.weights_SHW
    assert made.shape == carried.shape
    assert (carried[made > 0] == 1).all(), "a cell counts whose map holds no box"
    if "pooled" not in steps:
        assert made.sum() == mask.sum(), "every cell of the box counts once"


def test_targets_of_another_batch_are_refused():
    with pytest.raises(DistillError, match="2 images, but the taps hold 3"):
        Boxes(cases.boxes([], []), 3, (8, 8), CPU)
