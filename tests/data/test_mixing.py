"""Endless views: draws that are replayed, mosaics and mixtures whose boxes lie where their pixels do, colors, sizes."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autokd.data import Color, Mosaic, View, apply_view, plan_views
from autokd.data.mixing import draw_mosaic, mixture, mosaic_placements
from autokd.data.views import PAD_RGB, recolored
from autokd.training.loader import Batch

CANVAS = (48, 64)
ENDLESS = plan_views(
    30, None, seed=0, scale_range=(0.5, 1.5), color_jitter=1, mosaic_probability=0.5, mixup_probability=0.25,
    mix_epochs=40, batch_scale_range=(0.5, 1.5),
)  # fmt: skip


def test_endless_views_are_a_pure_function_of_seed_image_and_epoch() -> None:
    drawn = {(i, n): ENDLESS.view(i, n) for i in range(30) for n in (1, 2, 39, 1000)}
    assert {key: replace(ENDLESS, num_images=30).view(*key) for key in reversed(drawn)} == drawn
    assert len({repr(view) for view in drawn.values()}) == len(drawn)
    assert ENDLESS.of_training(3).view(4, 1) != ENDLESS.view(4, 1)
    finite = plan_views(30, 2, seed=0)
    assert finite.of_training(3) is finite


def test_mosaics_and_mixtures_occur_with_their_probabilities_and_stop_with_their_last_epoch() -> None:
    before = [ENDLESS.view(i, n) for i in range(30) for n in range(1, 41)]
    # 1200 draws each: standard deviations of .0144 and .0125; four of them.
    assert abs(np.mean([view.mosaic is not None for view in before]) - 0.5) < 0.06
    assert abs(np.mean([view.mixed_with is not None for view in before]) - 0.25) < 0.05
    after = [ENDLESS.view(i, n) for i in range(30) for n in (41, 60)]
    assert all(view.mosaic is None and view.mixed_with is None for view in after)
    for view in before:
        if view.mosaic is not None:
            assert len(view.mosaic.parts) == 4
            assert all(0.3 <= share <= 0.7 for share in view.mosaic.center)


def test_a_setting_that_is_off_changes_no_draw_of_the_others_and_no_digest() -> None:
    plain = plan_views(30, 2, seed=0, scale_range=(0.5, 1.5))
    colored = plan_views(30, 2, seed=0, scale_range=(0.5, 1.5), color_jitter=0.5)
    for index in range(30):
        assert replace(colored.view(index, 1), color=None) == plain.view(index, 1)
    assert colored.digest != plain.digest
    # Of a plan that only the first five settings describe, as it was before there were others.
    assert plain.digest == "50fe327e60028b4e"


def test_sizes_of_batches_are_multiples_of_32_in_their_range() -> None:
    sizes = [ENDLESS.batch_size_px((480, 640), 1, batch) for batch in range(200)]
    assert len(set(sizes)) > 10
    for height, width in sizes:
        assert height % 32 == width % 32 == 0
        assert 240 - 16 <= height <= 720 + 16
        assert abs(width - height * 4 / 3) <= 32
    assert plan_views(30, None, seed=0).batch_size_px((481, 641), 1, 3) == (481, 641)


parts = st.builds(View, flip=st.booleans(), scale=st.floats(0.4, 1.2))
content_sizes = st.tuples(st.integers(20, CANVAS[0]), st.integers(20, CANVAS[1]))


@settings(max_examples=80, deadline=None)
@given(
    views=st.tuples(parts, parts, parts, parts),
    contents=st.tuples(content_sizes, content_sizes, content_sizes, content_sizes),
    center=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
    which=st.integers(0, 3),
    y=st.integers(0, 10),
    x=st.integers(0, 10),
    side=st.integers(5, 9),
)
def test_boxes_follow_the_pixels_through_a_mosaic(views, contents, center, which, y, x, side) -> None:
    """A bright square on one of four black images is found where its mapped box says, to a pixel of blur."""
    images = [torch.zeros((3, *CANVAS), dtype=torch.uint8) for _ in range(4)]
    images[which][:, y : y + side, x : x + side] = 255
    placements = mosaic_placements(views, contents, center, CANVAS)
    seen = draw_mosaic(images, views, contents, placements, CANVAS).numpy()
    placement = placements[which]
    (top, left), (rows, columns) = placement.paste_start, placement.visible_size
    found = np.argwhere(seen[0, top : top + rows, left : left + columns] > 127) + np.array([top, left])
    expected = placement.box_map.apply([[x, y, x + side, y + side]])[0]
    clipped = expected.clip([left, top, left, top], [left + columns, top + rows] * 2)
    if (clipped[2:] - clipped[:2]).min() < 2:
        return
    corners = [found[:, 1].min(), found[:, 0].min(), found[:, 1].max() + 1, found[:, 0].max() + 1]
    np.testing.assert_allclose(corners, clipped, atol=1.01)


def test_the_images_of_a_mosaic_meet_at_its_center_and_leave_the_rest_as_padding() -> None:
    images = [torch.full((3, *CANVAS), value, dtype=torch.uint8) for value in (10, 20, 30, 40)]
    views = [View(scale=0.25)] * 4
    placements = mosaic_placements(views, [CANVAS] * 4, (0.5, 0.25), CANVAS)
    seen = draw_mosaic(images, views, [CANVAS] * 4, placements, CANVAS).numpy()
    expected = np.broadcast_to(np.array(PAD_RGB)[:, None, None], (3, *CANVAS)).copy()
    # A quarter of 48 x 64 is 12 x 16; the center is (24, 16).
    for value, rows, columns in [(10, (12, 24), (0, 16)), (20, (12, 24), (16, 32)), (30, (24, 36), (0, 16)),
                                 (40, (24, 36), (16, 32))]:  # fmt: skip
        expected[:, rows[0] : rows[1], columns[0] : columns[1]] = value
    np.testing.assert_array_equal(seen, expected)


def test_a_mixture_is_the_mean_with_the_boxes_of_both(coco) -> None:
    dataset = coco.load()
    first, second = (dataset.load(index) for index in (0, 1))
    mixed = dataset.load(0, View(mixed_with=(1, View())))
    mean = (first.pixels_CHW.numpy().astype(float) + second.pixels_CHW.numpy()) / 2
    np.testing.assert_array_equal(mixed.pixels_CHW.numpy(), np.floor(mean + 0.5))
    assert torch.equal(mixed.target["boxes"], torch.cat([first.target["boxes"], second.target["boxes"]]))
    assert torch.equal(mixed.target["labels"], torch.cat([first.target["labels"], second.target["labels"]]))
    assert mixture(torch.tensor([255], dtype=torch.uint8), torch.tensor([255], dtype=torch.uint8)).item() == 255


def test_a_mosaic_of_a_data_set_has_the_boxes_of_its_four_images(coco) -> None:
    dataset = coco.load()
    shown = tuple((index, View(scale=0.5)) for index in (0, 1, 2, 0))
    view = View(mosaic=Mosaic((0.5, 0.5), shown))
    sample = dataset.load(0, view)
    # Halves of 40 x 60 at a center of (20, 30): each image lies whole in its quarter.
    corners = [(0, 0), (0, 30), (20, 0), (20, 30)]
    expected = [
        dataset.load(index).target["boxes"] / 2 + torch.tensor([x, y, x, y])
        for (index, _), (y, x) in zip(shown, corners)
    ]
    torch.testing.assert_close(sample.target["boxes"], torch.cat(expected))
    assert torch.equal(dataset.target(0, view)["boxes"], sample.target["boxes"])


def test_colors_change_by_their_factors() -> None:
    pixels = torch.tensor([[[200]], [[100]], [[50]]], dtype=torch.uint8)
    assert recolored(pixels, Color(brightness=1.5)).flatten().tolist() == [255, 150, 75]
    # One pixel: the mean gray is its own, .299 R + .587 G + .114 B = 124.2.
    gray = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    for color in (Color(saturation=0.5), Color(contrast=0.5)):
        expected = [gray + 0.5 * (value - gray) for value in (200, 100, 50)]
        np.testing.assert_allclose(recolored(pixels, color).flatten().tolist(), expected, atol=1.5)
    h, s, v = colorsys.rgb_to_hsv(200 / 255, 100 / 255, 50 / 255)
    turned = np.array(colorsys.hsv_to_rgb(h + 0.2, s, v)) * 255
    np.testing.assert_allclose(recolored(pixels, Color(hue=0.2)).flatten().tolist(), turned, atol=2)


def test_padding_keeps_its_color() -> None:
    image = torch.zeros((3, 20, 30), dtype=torch.uint8) + torch.tensor(PAD_RGB, dtype=torch.uint8)[:, None, None]
    image[:, :10] = 200
    seen = apply_view(image, (10, 30), View(color=Color(brightness=0.5)))
    assert (seen[:, :10] == 100).all()
    assert torch.equal(seen[:, 10:], image[:, 10:])


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_a_batch_at_another_size_has_its_boxes_scaled(size: tuple[int, int]) -> None:
    target = {"boxes": torch.tensor([[4.0, 8.0, 16.0, 24.0]]), "labels": torch.tensor([2])}
    batch = Batch(((0, 1),), torch.rand(1, 3, 32, 48), [target])
    scaled = batch.at_size(size)
    assert scaled.images_BCHW.shape == (1, 3, *size)
    y, x = size[0] / 32, size[1] / 48
    torch.testing.assert_close(scaled.targets[0]["boxes"], torch.tensor([[4 * x, 8 * y, 16 * x, 24 * y]]))
    assert batch.at_size((32, 48)) is batch
