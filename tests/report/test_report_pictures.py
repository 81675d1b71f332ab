"""Which boxes count as right, and what the drawn pictures hold."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autokd.report.pictures import FOUND, TRUTH, Boxes, ComparisonImage, draw_panels, iou, match, open_image


def decoded(data_uri: str) -> np.ndarray:
    head, encoded = data_uri.split(",", 1)
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))), dtype=int)


def test_iou_is_the_share_of_the_union() -> None:
    assert iou([0, 0, 10, 10], [5, 0, 15, 10]) == pytest.approx(50 / 150)
    assert iou([0, 0, 10, 10], [20, 0, 30, 10]) == 0
    assert iou([3, 3, 3, 3], [3, 3, 3, 3]) == 0


def test_a_ground_truth_box_is_found_once_and_only_by_its_class() -> None:
    truth = Boxes([[0, 0, 10, 10], [20, 0, 30, 10]], [0, 1])
    found = Boxes([[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 30, 10]], [0, 0, 0], [0.9, 0.8, 0.7])
    matched = match(found, truth)
    assert matched.is_right == (True, False, False)
    assert matched.missed == (1,)


def test_boxes_below_the_threshold_are_left_out_and_the_surest_come_first() -> None:
    kept = Boxes([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]], [0, 1, 2], [0.4, 0.2, 0.8]).above(0.3)
    assert list(kept.labels) == [2, 0]
    assert list(kept.scores) == [0.8, 0.4]


def test_panels_are_ground_truth_and_each_detector_with_what_they_count() -> None:
    truth = Boxes([[10, 10, 40, 40]], [0])
    image = ComparisonImage(
        np.full((3, 60, 80), 0.5), truth,
        {"teacher": Boxes([[10, 10, 40, 40]], [0], [0.9]), "none": Boxes([[50, 5, 70, 20]], [0], [0.9])}, ("cell",),
    )  # fmt: skip
    panels = draw_panels(image, 0.3)
    assert [panel.title for panel in panels] == ["ground truth", "teacher", "none"]
    assert [panel.summary for panel in panels] == [
        "1 objects",
        "1 right, 0 false, 0 missed",
        "0 right, 1 false, 1 missed",
    ]
    assert {(panel.width_px, panel.height_px) for panel in panels} == {(360, 270)}


def test_boxes_are_drawn_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "gray.png"
    Image.new("L", (180, 90), 128).save(path)
    truth = Boxes([[20, 20, 80, 70]], [0])
    image = ComparisonImage(path, truth, {"teacher": Boxes([[20, 20, 80, 70]], [0], [1.0])}, ("cell",))
    for panel, color in zip(draw_panels(image, 0.5), (TRUTH, FOUND), strict=True):
        pixels_HWC = decoded(panel.data_uri)
        # The right side of the box, x = 80 px, is at 160 after the image was enlarged twofold.
        side, inside = pixels_HWC[100, 157:163], pixels_HWC[100, 100]
        assert np.abs(side - np.array(color)).sum(axis=1).min() < 120
        assert np.abs(inside - 128).max() < 12


def test_an_image_is_turned_upright_only_if_the_boxes_are_given_so(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (80, 40)
    assert open_image(tmp_path / "turned.jpg", (40, 80)).size == (80, 40)
    assert open_image(tmp_path / "turned.jpg", (80, 40)).size == (40, 80)


def test_sixteen_bit_gray_keeps_its_shades(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "deep.png")
    assert open_image(tmp_path / "deep.png").getpixel((0, 0)) == (128, 128, 128)


def test_boxes_outside_the_image_or_turned_around_do_not_break_the_drawing() -> None:
    wild = Boxes([[-50, -50, -10, -10], [70, 50, 500, 500], [30, 30, 10, 10]], [0, 7, 0], [0.9, 0.9, 0.9])
    image = ComparisonImage(np.zeros((60, 80, 3), np.uint8), Boxes([], []), {"none": wild}, ("cell",))
    assert draw_panels(image, 0.3)[1].summary == "0 right, 3 false, 0 missed"
