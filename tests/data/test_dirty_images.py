"""Each kind of dirt in image files: what is refused, what is mended, and how boxes follow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from autokd.data import load_datasets
from autokd.data.views import PAD_RGB
from autokd.errors import DataError

ORIENTED = {
    # EXIF orientation -> how NumPy makes the stored image upright (EXIF 2.32, tag 0x0112).
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).transpose(1, 0, 2),
    8: lambda image: np.rot90(image, 1),
}


def _pixels(seed: int = 0, size: tuple[int, int] = (40, 60)) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def _loaded(dataset: Any, index: int = 0) -> np.ndarray[Any, Any]:
    return dataset.load(index).pixels_CHW.numpy().transpose(1, 2, 0)


def test_missing_image_is_named_before_training(coco: Any) -> None:
    coco.image_path(2).unlink()
    coco.write()
    with pytest.raises(DataError, match=r"train\.json: image 2: .*2\.png: no such image\. Put the file there"):
        load_datasets(coco.config(), coco.root)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_truncated_image_is_named_by_the_check_and_by_loading(coco: Any, suffix: str) -> None:
    coco.data["images"][0]["file_name"] = f"cut.{suffix}"
    path = coco.image_path(1)
    Image.fromarray(_pixels()).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    dataset = coco.load()
    with pytest.raises(DataError, match=rf"image 1: .*cut\.{suffix}: the image cannot be read.*Copy or download"):
        dataset.check()
    with pytest.raises(DataError, match=rf"cut\.{suffix}"):
        dataset.load(0)


def test_file_that_is_no_image_is_named(coco: Any) -> None:
    coco.image_path(1).write_text("<html>404</html>")
    coco.image_path(3).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        coco.load().check()
    assert "image 1" in str(caught.value)
    assert "image 3" in str(caught.value)


def test_whole_jpeg_with_bytes_after_its_end_is_read(coco: Any) -> None:
    coco.data["images"][0]["file_name"] = "padded.jpg"
    Image.fromarray(_pixels()).save(coco.image_path(1))
    with coco.image_path(1).open("ab") as file:
        file.write(b"\0" * 10_000)
    dataset = coco.load()
    dataset.check()
    assert _loaded(dataset).shape == (40, 60, 3)


def test_grayscale_alpha_palette_and_16_bit_become_rgb(coco: Any) -> None:
    rgb, gray = _pixels(), _pixels(1)[..., 0]
    deep = np.random.default_rng(2).integers(0, 65536, (40, 60)).astype(np.uint16)
    alpha = np.dstack([rgb, gray])
    cases = {
        "gray.png": (Image.fromarray(gray), np.dstack([gray] * 3)),
        "alpha.png": (Image.fromarray(alpha), rgb),
        "deep.png": (Image.fromarray(deep), np.dstack([deep // 256] * 3)),
        "deep.tif": (Image.fromarray(deep), np.dstack([deep // 256] * 3)),
        "bits.png": (Image.fromarray(gray > 127), np.dstack([(gray > 127) * 255] * 3)),
    }
    coco.data["images"] = []
    for number, (name, (image, _)) in enumerate(cases.items(), start=1):
        image.save(coco.root / "images" / name)
        coco.data["images"].append({"id": number, "file_name": name, "width": 60, "height": 40})
    dataset = coco.load()
    for index, (_, expected) in enumerate(cases.values()):
        np.testing.assert_array_equal(_loaded(dataset, index), expected)
    report = dataset.check()
    assert (report.gray_images, report.alpha_images, report.deep_images) == (2, 1, 2)


def test_palette_with_transparency_and_cmyk_are_read(coco: Any) -> None:
    rgb = _pixels()
    coco.data["images"][0]["file_name"] = "palette.png"
    palette = Image.fromarray(rgb).quantize(16)
    palette.save(coco.image_path(1), transparency=bytes([0, 255] * 8))
    coco.data["images"][1]["file_name"] = "print.jpg"
    Image.fromarray(rgb).convert("CMYK").save(coco.image_path(2), quality=100)
    dataset = coco.load()
    np.testing.assert_array_equal(_loaded(dataset, 0), np.asarray(palette.convert("RGB")))
    assert _loaded(dataset, 1).shape == (40, 60, 3)
    assert dataset.check().alpha_images == 1


def test_floating_point_pixels_are_refused(coco: Any) -> None:
    coco.data["images"][0]["file_name"] = "float.tif"
    Image.fromarray(np.zeros((40, 60), dtype=np.float32)).save(coco.image_path(1))
    with pytest.raises(DataError, match=r"float\.tif: floating-point pixels have no known range\. Convert"):
        coco.load().check()


def _save_oriented(path: Path, stored: np.ndarray[Any, Any], orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(stored).save(path, exif=exif, **({"quality": 100} if path.suffix == ".jpg" else {}))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_image_is_rotated_where_only_that_fits_the_json(coco: Any, orientation: int, suffix: str) -> None:
    stored = np.zeros((60, 40, 3), dtype=np.uint8)
    stored[4:20, 6:14] = 255
    coco.data["images"][0]["file_name"] = f"turned.{suffix}"
    _save_oriented(coco.image_path(1), stored, orientation)
    dataset = coco.load()
    upright = ORIENTED[orientation](stored)
    assert upright.shape == (40, 60, 3)
    difference = np.abs(_loaded(dataset).astype(int) - upright.astype(int))
    assert difference.max() <= (0 if suffix == "png" else 40)
    assert dataset.check().rotated_images == 1


@pytest.mark.parametrize("orientation", [3, 6])
def test_image_that_fits_as_stored_is_not_rotated(coco: Any, orientation: int) -> None:
    stored = _pixels(3)
    _save_oriented(coco.image_path(1), stored, orientation)
    dataset = coco.load()
    np.testing.assert_array_equal(_loaded(dataset), stored)
    report = dataset.check()
    assert (report.rotated_images, report.orientation_ignored) == (0, 1)
    assert "EXIF orientation" in report.summary()


def test_large_rotated_jpeg_is_reduced_while_decoded_and_still_upright(coco: Any) -> None:
    stored = np.zeros((600, 400, 3), dtype=np.uint8)
    stored[300:] = 255
    coco.data["images"][0].update(file_name="big.jpg", width=600, height=400)
    _save_oriented(coco.image_path(1), stored, 6)
    pixels = _loaded(coco.load())
    # Orientation 6: the stored image's lower half is the upright image's left half.
    assert pixels[:, :25].min() > 200
    assert pixels[:, 35:].max() < 55


def test_resized_image_is_scaled_to_the_frame_of_its_boxes(coco: Any) -> None:
    stored = np.zeros((80, 120, 3), dtype=np.uint8)
    stored[12:32, 10:50] = 255  # twice the box (5, 6)-(25, 16) of the JSON, which speaks of 60 x 40
    Image.fromarray(stored).save(coco.image_path(1))
    dataset = coco.load()
    assert dataset.check().scaled_images == 1
    bright = np.argwhere(_loaded(dataset)[..., 0] > 127)
    assert (*bright.min(0), *(bright.max(0) + 1)) == (6, 5, 16, 25)
    assert dataset.load(0).target["boxes"][0].tolist() == [5, 6, 25, 16]


def test_image_of_another_aspect_ratio_is_refused(coco: Any) -> None:
    Image.fromarray(_pixels(0, (50, 60))).save(coco.image_path(1))
    dataset = coco.load()
    expected = r"1\.png: the file has 60 x 50 pixels, the JSON says 60 x 40.*correct 'width' and 'height'"
    with pytest.raises(DataError, match=expected):
        dataset.check()
    with pytest.raises(DataError, match=expected):
        dataset.load(0)


def test_letterbox_matches_a_resize_of_ones_own(coco: Any) -> None:
    stored = np.asarray(Image.open(coco.image_path(1)))
    pixels = _loaded(coco.load(image_size_px=(64, 64)))
    # 40 x 60 into 64 x 64: scale 64/60, so 42.67 -> 43 rows of picture and 21 of padding.
    resized = np.asarray(Image.fromarray(stored).resize((64, 43), Image.Resampling.BILINEAR))
    # Equal but for rounding: where an image is enlarged, torch's filter takes the place of Pillow's.
    assert np.abs(pixels[:43].astype(int) - resized).max() <= 1
    assert (pixels[:43] == resized).mean() > 0.98
    assert (pixels[43:] == np.array(PAD_RGB)).all()


def test_letterbox_that_reduces_equals_pillows_filter(coco: Any) -> None:
    stored = np.asarray(Image.open(coco.image_path(1)))
    pixels = _loaded(coco.load(image_size_px=(32, 32)))
    resized = np.asarray(Image.fromarray(stored).resize((32, 21), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels[:21], resized)


def test_images_kept_and_decoded_on_demand_are_the_same(coco: Any) -> None:
    kept, on_demand = coco.load((64, 64)), coco.load((64, 64), memory_limit_bytes=1000)
    assert kept.keeps_images
    assert not on_demand.keeps_images
    for index in range(3):
        first = _loaded(kept, index)
        np.testing.assert_array_equal(first, _loaded(on_demand, index))
        np.testing.assert_array_equal(first, _loaded(kept, index))


def test_kept_images_are_decoded_once(coco: Any) -> None:
    dataset = coco.load()
    dataset.preload()
    for image_id in (1, 2, 3):
        coco.image_path(image_id).unlink()
    assert dataset.load(0).image.shape == (3, 40, 60)


def test_png_whose_exif_follows_its_pixels_is_rotated(coco: Any) -> None:
    stored = np.zeros((60, 40, 3), dtype=np.uint8)
    stored[4:20, 6:14] = 255
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(stored).save(buffer, "png", exif=exif)
    data = buffer.getvalue()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    before_end = data.index(b"IEND") - 4
    coco.image_path(1).write_bytes(data[:start] + data[end:before_end] + data[start:end] + data[before_end:])
    dataset = coco.load()
    assert dataset.check().rotated_images == 1
    np.testing.assert_array_equal(_loaded(dataset), np.rot90(stored, -1))
