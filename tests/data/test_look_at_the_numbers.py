"""Sets that are read but mean something else than they say: refused with the remedy, or reported."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autokd.data import load_datasets
from autokd.data.depth import shift_of_depth
from autokd.errors import DataError

BOXES = [[2, 3, 20, 10], [30, 10, 15, 25], [40, 20, 18, 12], [5, 25, 12, 9], [50, 2, 8, 30], [33, 30, 20, 8]]


def _many_boxes(coco: Any, change: Any) -> None:
    """Give each image six boxes, each as ``change`` writes it."""
    coco.data["annotations"] = [
        {"id": 10 * image_id + i, "image_id": image_id, "category_id": 1 + i % 2, "bbox": change(*box)}
        for image_id in (1, 2, 3)
        for i, box in enumerate(BOXES)
    ]


def test_corners_are_refused_with_the_formula(coco: Any) -> None:
    _many_boxes(coco, lambda x, y, w, h: [x, y, x + w, y + h])
    # By hand: x + x2 > 61 or y + y2 > 41 holds for all boxes but the first (22, 16) and the fourth (22, 59: outside).
    with pytest.raises(DataError, match=r"train\.json: 15 of 18 boxes reach outside.*write \[x1, y1, x2 - x1, y2 - y1"):
        coco.load()


def test_parts_of_the_image_are_refused(coco: Any) -> None:
    _many_boxes(coco, lambda x, y, w, h: [x / 60, y / 40, w / 60, h / 40])
    with pytest.raises(DataError, match=r"all 18 boxes lie between 0 and 1.*multiply x and width by the image's width"):
        coco.load()


def test_centers_are_suspected(coco: Any) -> None:
    _many_boxes(coco, lambda x, y, w, h: [x + w / 2, y + h / 2, w, h])
    [hint] = [line for line in coco.load().report.warnings() if "center" in line]
    assert "reach outside their image" in hint


def test_pixels_of_another_size_are_suspected(coco: Any) -> None:
    _many_boxes(coco, lambda x, y, w, h: [3 * x, 3 * y, 3 * w, 3 * h])
    assert any("another size" in line for line in coco.load().report.warnings())


def test_sound_boxes_are_not_suspected_even_if_they_touch_all_edges(coco: Any) -> None:
    _many_boxes(coco, lambda *box: list(box))
    coco.data["annotations"] += [
        {"id": 500 + i, "image_id": 3, "category_id": 1, "bbox": [0, 0, 60, 40]} for i in range(9)
    ]
    assert coco.load().report.hints == ()


def test_one_file_under_several_ids_is_refused(coco: Any) -> None:
    coco.data["images"][2]["file_name"] = "./1.png"
    with pytest.raises(DataError, match=r"the file '1\.png' is listed under the image ids 1, 3\..*give the file one"):
        coco.load()


def test_objects_marked_as_crowds_are_reported_and_if_all_are_refused(coco: Any) -> None:
    for row in coco.data["annotations"][:2]:
        row.update(iscrowd=1, segmentation={"counts": "abc", "size": [40, 60]})
    [hint] = coco.load().report.hints
    assert hint.startswith("2 of 3 boxes are crowd regions.")
    assert "set their 'iscrowd' to 0" in hint
    coco.data["annotations"][2]["iscrowd"] = 1
    with pytest.raises(DataError, match=r"no.*usable box: all 3 boxes are crowd regions.*set their 'iscrowd' to 0"):
        coco.load()


def test_backslashes_separate_folders_where_no_file_has_that_very_name(coco: Any, tmp_path: Path) -> None:
    names = [image["file_name"] for image in coco.data["images"]]
    for image in coco.data["images"]:
        image["file_name"] = "images\\" + image["file_name"]
    coco.write()
    data = load_datasets(coco.config(images="."), tmp_path / "cache")
    assert [data.train.image_path(i).resolve() for i in range(3)] == [coco.root / "images" / name for name in names]
    assert any("backslashes" in line for line in data.train.report.notes())
    assert data.train.report.warnings() == ()


def test_a_file_whose_name_has_a_backslash_is_itself(coco: Any) -> None:
    for image in coco.data["images"]:
        old = coco.root / "images" / image["file_name"]
        image["file_name"] = "a\\" + image["file_name"]
        old.rename(coco.root / "images" / image["file_name"])
    dataset = coco.load()
    assert dataset.check().notes() == ("images without boxes, kept, as background: 1",)


def test_images_beside_their_annotation_file_are_found(coco: Any, tmp_path: Path) -> None:
    (coco.root / "images").rename(coco.root / "pictures")
    (coco.root / "pictures" / "part.json").write_text(json.dumps(coco.data))
    config = coco.config(images=".").model_copy(update={"train": "pictures/part.json", "val": "pictures/part.json"})
    data = load_datasets(config, tmp_path / "cache")
    assert data.train.image_path(0) == coco.root / "pictures" / "1.png"
    assert any("not in data.images" in line for line in data.train.report.notes())


@pytest.mark.parametrize(("bits", "shift"), [(8, 0), (10, 2), (12, 4), (16, 8)])
def test_the_bits_that_the_whole_set_uses_are_kept(coco: Any, tmp_path: Path, bits: int, shift: int) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (3, 40, 60)).astype(np.uint16)
    values[2, 0, 0] = 2**bits - 1  # in one image alone, and the factor is that of all
    values[:2] //= 4
    for image_id in (1, 2, 3):
        Image.fromarray(values[image_id - 1]).save(coco.image_path(image_id))
    coco.write()
    data = load_datasets(coco.config(), tmp_path / "cache")
    assert data.train.deep_shift == shift
    for index in range(3):
        expected = np.stack([values[index] // 2**shift] * 3)
        np.testing.assert_array_equal(data.train.load(index).pixels_CHW.numpy(), expected)
    assert any(f"divided by {2**shift} instead of 256" in note for note in data.train.report.notes()) == (shift < 8)
    assert data.train.report.deep_images == 3


def test_one_factor_holds_for_all_splits(coco: Any, make_coco: Any, tmp_path: Path) -> None:
    coco.data["images"] = coco.data["images"][:1]
    coco.data["annotations"] = coco.data["annotations"][:2]
    for name, peak in (("train", 1000), ("val", 4000)):
        image = np.full((40, 60), peak, dtype=np.uint16)
        coco.data["images"][0]["file_name"] = f"{name}.png"
        Image.fromarray(image).save(coco.root / "images" / f"{name}.png")
        coco.write(f"{name}.json")
    data = load_datasets(coco.config().model_copy(update={"val": "val.json"}), tmp_path / "cache")
    # 4000 takes 12 bits, so both splits lose 4.
    assert int(data.train.load(0).pixels_CHW.max()) == 1000 // 16
    assert int(data.val.load(0).pixels_CHW.max()) == 4000 // 16
    assert data.at_size((32, 48)).train.deep_shift == 4


def test_the_shift_leaves_eight_bits() -> None:
    assert [shift_of_depth(peak) for peak in (1, 255, 256, 1023, 4095, 4096, 65535)] == [0, 0, 1, 2, 4, 5, 8]


def test_an_image_beyond_the_limit_is_refused_with_a_remedy_that_helps(coco: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # the images have 2,400, and Pillow refuses the double
    with pytest.raises(
        DataError, match=r"1\.png: the image is too large.*million pixels.*tiles.*scale it down"
    ) as caught:
        coco.load().check()
    assert "download" not in str(caught.value)


def test_shared_images_are_reported_whatever_their_names(coco: Any, tmp_path: Path, caplog: Any) -> None:
    coco.write()
    copy = json.loads(json.dumps(coco.data))
    for image in copy["images"][:2]:
        content = (coco.root / "images" / image["file_name"]).read_bytes()
        image["file_name"] = "copy_" + image["file_name"]
        (coco.root / "images" / image["file_name"]).write_bytes(content)
    own = np.full((40, 60, 3), 7, dtype=np.uint8)
    copy["images"][2]["file_name"] = "own.png"
    Image.fromarray(own).save(coco.root / "images" / "own.png")
    (coco.root / "val.json").write_text(json.dumps(copy))
    config = coco.config().model_copy(update={"val": "val.json"})
    with caplog.at_level(logging.WARNING, logger="autokd.data"):
        data = load_datasets(config, tmp_path / "cache")
    [sentence] = data.shared_images
    assert sentence.startswith("train and val share 2 images (of 3 and 3)")
    assert sentence in caplog.text


def test_a_test_file_that_is_vals_is_val(coco: Any, tmp_path: Path) -> None:
    coco.write("val.json")
    Image.fromarray(np.full((40, 60, 3), 9, dtype=np.uint8)).save(coco.root / "images" / "other.png")
    coco.data["images"] = [{"id": 1, "file_name": "other.png", "width": 60, "height": 40}]
    coco.data["annotations"] = coco.data["annotations"][:2]
    coco.write()
    data = load_datasets(coco.config(test="val.json").model_copy(update={"val": "val.json"}), tmp_path / "cache")
    assert data.test is data.val
    assert data.test_is_val
    assert data.shared_images == ()
