"""JPEG files by torchvision's decoder: Pillow's pixels to the bit, and Pillow where it cannot read one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from autokd.data.images import read_pixels
from autokd.data.jpeg import decoded_jpeg
from autokd.errors import DataError

FRAME = (45, 61)
FORMS = {
    "420": {"quality": 75, "subsampling": "4:2:0"},
    "422": {"quality": 60, "subsampling": "4:2:2"},
    "444": {"quality": 95, "subsampling": "4:4:4"},
    "progressive": {"quality": 80, "progressive": True},
    "restarts": {"quality": 80, "restart_marker_blocks": 3},
}


@pytest.fixture(scope="module")
def photograph():
    """Smooth colors under noise, so that subsampled channels matter."""
    y, x = np.mgrid[: FRAME[0], : FRAME[1]]
    waves = np.stack([127 + 90 * np.sin(x / 7 + k) * np.cos(y / (5 + k)) for k in range(3)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 12, waves.shape)
    return Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8))


def by_pillow(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize("form", FORMS)
def test_pixels_are_pillows(photograph, tmp_path, form):
    path = tmp_path / "a.jpg"
    photograph.save(path, "JPEG", **FORMS[form])
    found = decoded_jpeg(path, FRAME)
    assert found is not None
    assert np.array_equal(found, by_pillow(path))
    assert np.array_equal(read_pixels(path, FRAME, FRAME), by_pillow(path))


def test_gray_files_get_three_equal_channels(photograph, tmp_path):
    path = tmp_path / "gray.jpg"
    photograph.convert("L").save(path, "JPEG")
    assert np.array_equal(decoded_jpeg(path, FRAME), by_pillow(path))


def test_enlarged_images_are_those_that_pillows_pixels_give(photograph, tmp_path):
    photograph.save(tmp_path / "a.jpg", "JPEG", quality=80)
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.png")
    found, expected = (read_pixels(tmp_path / name, FRAME, (90, 122)) for name in ("a.jpg", "a.png"))
    assert np.array_equal(found, expected)


def test_pillow_reads_what_is_none_of_these(photograph, tmp_path):
    for name, image in {"four.jpg": photograph.convert("CMYK"), "a.png": photograph}.items():
        image.save(tmp_path / name)
        assert decoded_jpeg(tmp_path / name, FRAME) is None
        assert np.array_equal(read_pixels(tmp_path / name, FRAME, FRAME), by_pillow(tmp_path / name))
    photograph.save(tmp_path / "a.jpg")
    assert decoded_jpeg(tmp_path / "a.jpg", (FRAME[1], FRAME[0])) is None  # to be turned, or refused
    assert decoded_jpeg(tmp_path / "no.jpg", FRAME) is None


def test_a_file_that_is_cut_short_is_refused_and_not_gray(photograph, tmp_path):
    path = tmp_path / "a.jpg"
    photograph.save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match="cannot be read"):
        read_pixels(path, FRAME, FRAME)
