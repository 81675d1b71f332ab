"""Views: what they do to pixels and to boxes, and that they can be replayed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autokd.data import IDENTITY, BoxMap, View, apply_view, letterbox, plan_views
from autokd.data.views import PAD_RGB, place


def _image(size: tuple[int, int], content: tuple[int, int], seed: int = 0) -> torch.Tensor:
    pixels = np.empty((3, *size), dtype=np.uint8)
    pixels[:] = np.array(PAD_RGB, dtype=np.uint8)[:, None, None]
    pixels[:, : content[0], : content[1]] = np.random.default_rng(seed).integers(0, 256, (3, *content))
    return torch.from_numpy(pixels)


def test_identity_gives_the_image_itself() -> None:
    image = _image((20, 30), (15, 30))
    assert apply_view(image, (15, 30), IDENTITY) is image


@pytest.mark.parametrize("content", [(20, 30), (15, 30), (20, 22)])
def test_flip_mirrors_the_picture_and_leaves_the_padding(content: tuple[int, int]) -> None:
    image = _image((20, 30), content)
    flipped = apply_view(image, content, View(flip=True))
    h, w = content
    np.testing.assert_array_equal(flipped[:, :h, :w], image.numpy()[:, :h, :w][:, :, ::-1])
    expected_padding = np.broadcast_to(np.array(PAD_RGB)[:, None, None], (3, 20, 30))
    np.testing.assert_array_equal(flipped[:, h:], expected_padding[:, h:])
    np.testing.assert_array_equal(flipped[:, :, w:], expected_padding[:, :, w:])
    assert torch.equal(apply_view(flipped, content, View(flip=True)), image)


def test_enlarged_view_is_cut_where_its_offset_says() -> None:
    image = _image((20, 30), (20, 30))
    enlarged = torch.nn.functional.interpolate(image[None].float(), size=(40, 60), mode="bilinear")[0]
    for offset, (top, left) in {(0.0, 0.0): (0, 0), (1.0, 1.0): (20, 30), (0.5, 0.25): (10, 8)}.items():
        view = apply_view(image, (20, 30), View(scale=2.0, offset=offset))
        assert view.shape == image.shape
        assert view.dtype == torch.uint8
        difference = view.float() - enlarged[:, top : top + 20, left : left + 30]
        assert float(difference.abs().max()) <= 1.0


def test_reduced_view_is_padded_around() -> None:
    image = torch.full((3, 20, 30), 255, dtype=torch.uint8)
    view = apply_view(image, (20, 30), View(scale=0.5, offset=(0.5, 1.0)))
    assert (view[:, 5:15, 15:] == 255).all()
    assert (view[0, :5] == PAD_RGB[0]).all()
    assert (view[2, :, :15] == PAD_RGB[2]).all()


def test_letterbox_arithmetic_matches_hand_computation() -> None:
    cases = {
        ((480, 640), (120, 160)): (120, 160),
        ((480, 640), (160, 160)): (120, 160),
        ((640, 480), (120, 160)): (120, 90),
        ((100, 333), (64, 96)): (29, 96),  # 100 * 96 / 333 = 28.83
        ((5, 1000), (64, 64)): (1, 64),  # never less than a pixel
        ((10, 10), (32, 48)): (32, 32),  # enlarged
    }
    for (original, canvas), content in cases.items():
        box = letterbox(original, canvas)
        assert box.content_size == content
        whole = box.box_map.apply([[0, 0, original[1], original[0]]])
        np.testing.assert_allclose(whole, [[0, 0, content[1], content[0]]])


numbers = st.floats(-50, 150, allow_nan=False)
scales = st.floats(0.1, 8)


@given(st.tuples(scales, numbers, scales, numbers), st.tuples(scales, numbers, scales, numbers), st.booleans())
def test_box_maps_compose_and_invert(first: tuple[float, ...], second: tuple[float, ...], mirrored: bool) -> None:
    a = BoxMap(-first[0] if mirrored else first[0], *first[1:])
    b = BoxMap(*second)
    boxes = np.array([[0.0, 1.0, 5.0, 9.0], [3.0, 3.0, 4.0, 60.0]])
    np.testing.assert_allclose(a.then(b).apply(boxes), b.apply(a.apply(boxes)), rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(a.inverse().apply(a.apply(boxes)), boxes, rtol=1e-9, atol=1e-7)


views = st.builds(
    View,
    flip=st.booleans(),
    scale=st.one_of(st.just(1.0), st.floats(0.5, 2.0)),
    offset=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)


@settings(max_examples=60, deadline=None)
@given(view=views, y=st.integers(0, 24), x=st.integers(0, 34), h=st.integers(6, 16), w=st.integers(6, 16))
def test_boxes_follow_the_pixels_through_any_view(view: View, y: int, x: int, h: int, w: int) -> None:
    """A bright rectangle on black is found in the view where its mapped box says, to a pixel of blur."""
    content, canvas = (40, 50), (44, 60)
    image = _image(canvas, content)
    image[:, :40, :50] = 0
    image[:, y : y + h, x : x + w] = 255
    seen = apply_view(image, content, view).numpy()[0]
    placement = place(view, content, canvas)
    (top, left), (rows, columns) = placement.paste_start, placement.visible_size
    picture = np.zeros(canvas, dtype=bool)
    picture[top : top + rows, left : left + columns] = True
    found = np.argwhere((seen > 127) & picture)
    expected = placement.box_map.apply([[x, y, x + w, y + h]])[0]
    clipped = expected.clip([left, top, left, top], [left + columns, top + rows] * 2)
    if (clipped[2:] - clipped[:2]).min() < 2:
        return
    corners = [found[:, 1].min(), found[:, 0].min(), found[:, 1].max() + 1, found[:, 0].max() + 1]
    np.testing.assert_allclose(corners, clipped, atol=1.01)


def test_plan_is_a_pure_function_of_seed_image_and_number() -> None:
    plan = plan_views(50, 3, seed=7, scale_range=(0.8, 1.25))
    longer = plan_views(100, 5, seed=7, scale_range=(0.8, 1.25))
    drawn = [plan.view(i, n) for i in range(50) for n in range(3)]
    assert [longer.view(i, n) for i in reversed(range(50)) for n in reversed(range(3))] == drawn[::-1]
    assert drawn != [plan_views(50, 3, seed=8, scale_range=(0.8, 1.25)).view(i, n) for i in range(50) for n in range(3)]
    assert all(0.8 <= view.scale <= 1.25 for view in drawn)
    assert len({view.offset for view in drawn}) == 150
    assert plan.digest != longer.digest
    assert plan.digest == plan_views(50, 3, seed=7, scale_range=(0.8, 1.25)).digest


def test_two_views_of_an_image_are_one_as_it_is_and_one_mirrored() -> None:
    plan = plan_views(200, 2, seed=0)
    flips = np.array([[plan.view(i, n).flip for n in range(2)] for i in range(200)])
    assert (flips.sum(1) == 1).all()
    # 200 fair coins: 100 +- 7; five deviations.
    assert 65 <= flips[:, 0].sum() <= 135


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flips_occur_with_their_probability(probability: float) -> None:
    plan = plan_views(400, 4, seed=1, flip_probability=probability)
    flips = np.mean([plan.view(i, n).flip for i in range(400) for n in range(4)])
    # At most 1600 independent draws: a standard deviation under 0.0125, and less since an image's are spread.
    assert abs(flips - probability) <= 0.05
    assert all(plan.view(i, n).scale == 1 and plan.view(i, n).offset == (0, 0) for i in range(20) for n in range(4))


def test_view_outside_the_plan_is_an_index_error() -> None:
    plan = plan_views(10, 2, seed=0)
    for index, number in [(10, 0), (-1, 0), (0, 2)]:
        with pytest.raises(IndexError):
            plan.view(index, number)
