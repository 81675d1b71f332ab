"""Each kind of dirt in an annotation file: a located error, or a counted warning."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from autokd.data import load_datasets
from autokd.errors import DataError

REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nan_box": ({"bbox": [5, math.nan, 20, 10]}, ["annotation 11", "'1.png'", "nan", "Correct or remove"]),
    "infinite_box": ({"bbox": [5, 6, math.inf, 10]}, ["annotation 11", "inf", "finite"]),
    "short_box": ({"bbox": [5, 6, 20]}, ["annotation 11", "[5, 6, 20]", "four finite numbers"]),
    "text_in_box": ({"bbox": [5, 6, "20", 10]}, ["annotation 11", "'20'"]),
    "box_no_list": ({"bbox": "5 6 20 10"}, ["annotation 11", "bbox is '5 6 20 10'", "not a list"]),
    "unknown_category": (
        {"category_id": 9},
        ["annotation 11", "category_id 9", "1 (cat), 2 (dog)", "Add the category"],
    ),
    "unknown_image": ({"image_id": 77}, ["annotation 11", "no image has the id 77", "remove the annotation"]),
    "image_id_no_number": ({"image_id": [1]}, ["annotation 11", "image_id is [1]", "whole number"]),
    "repeated_id": ({"id": 12}, ["two annotation entries have the id 12", "an id of its own"]),
    "odd_crowd": ({"iscrowd": 2}, ["annotation 11", "iscrowd is 2"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_broken_annotation_is_refused_with_file_id_and_remedy(coco: Any, case: str) -> None:
    change, expected = REFUSED[case]
    coco.data["annotations"][0].update(change)
    with pytest.raises(DataError) as caught:
        coco.load()
    for part in [str(coco.annotation_path), *expected]:
        assert part in str(caught.value)


@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "bbox"])
def test_missing_key_of_an_annotation_is_named(coco: Any, key: str) -> None:
    del coco.data["annotations"][1][key]
    with pytest.raises(DataError, match=f"(annotation 12|annotation number 1) has no '{key}'"):
        coco.load()


@pytest.mark.parametrize(
    ("section", "change", "expected"),
    [
        ("images", {"id": 2}, "two image entries have the id 2"),
        ("images", {"width": -3}, "width is -3"),
        ("images", {"file_name": None}, "file_name is None"),
        ("categories", {"id": 2}, "two category entries have the id 2"),
        ("categories", {"name": "dog"}, "two categories are named 'dog'"),
    ],
)
def test_broken_image_or_category_is_refused(coco: Any, section: str, change: dict[str, Any], expected: str) -> None:
    coco.data[section][0].update(change)
    with pytest.raises(DataError, match=expected):
        coco.load()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"images": [', "train.json:1:13: this is no JSON"),
        ("[]", "no list 'images'"),
        ('{"images": [], "annotations": []}', "no list 'categories'"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "'images' is empty"),
    ],
)
def test_file_that_is_no_coco_set_is_refused(coco: Any, tmp_path: Path, text: str, expected: str) -> None:
    from autokd.data import load_split

    path = tmp_path / "train.json"
    path.write_text(text)
    with pytest.raises(DataError, match=expected):
        load_split(path, coco.root / "images", (40, 60))


def test_missing_annotation_file_or_folder_is_named(coco: Any) -> None:
    coco.write()
    with pytest.raises(DataError, match=r"nothere\.json: no such annotation file"):
        load_datasets(coco.config(test="nothere.json"), coco.root)
    with pytest.raises(DataError, match=r"data\.images: .*nothere is no folder"):
        load_datasets(coco.config(images="nothere"), coco.root)


def test_several_faults_are_told_at_once_and_many_are_counted(coco: Any) -> None:
    row = coco.data["annotations"][0]
    coco.data["annotations"] += [{**row, "id": 100 + i, "category_id": 50 + i} for i in range(8)]
    with pytest.raises(DataError) as caught:
        coco.load()
    assert "annotation 100" in str(caught.value)
    assert "annotation 104" in str(caught.value)
    assert "and 3 more faults" in str(caught.value)


def test_set_without_a_usable_box_is_refused(coco: Any) -> None:
    coco.data["annotations"] = []
    with pytest.raises(DataError, match="none of the 3 images has a usable box"):
        coco.load()


def test_tolerated_dirt_is_dropped_clipped_and_counted(coco: Any) -> None:
    extra = [[10, 10, 0, 5], [10, 10, 5, -2], [80, 5, 10, 10], [-30, -30, 30, 35], [50, 30, 30, 30], [50, 30, 10.5, 10]]
    for i, box in enumerate(extra):
        coco.data["annotations"].append(
            {"id": 50 + i, "image_id": 1, "category_id": 1, "bbox": box, "area": 10, "iscrowd": 0}
        )
    dataset = coco.load()
    report = dataset.report
    assert (report.degenerate_boxes, report.outside_boxes, report.clipped_boxes) == (2, 2, 1)
    assert report.images_without_boxes == 1
    boxes = dataset.load(0).target["boxes"].tolist()
    assert boxes == [[5, 6, 25, 16], [30, 10, 45, 35], [50, 30, 60, 40], [50, 30, 60, 40]]
    assert len(dataset.load(2).target["boxes"]) == 0
    assert "boxes without width or height, dropped: 2" in report.summary()


def test_crowd_is_left_out_of_training_and_ignored_by_the_evaluation(coco: Any) -> None:
    coco.data["annotations"][1]["iscrowd"] = 1
    dataset = coco.load()
    assert dataset.report.crowd_regions == 1
    assert dataset.load(0).target["labels"].tolist() == [0]
    ground_truth = dataset.ground_truth()
    assert [row["iscrowd"] for row in ground_truth.dataset["annotations"]] == [0, 1, 0]
    assert min(row["id"] for row in ground_truth.dataset["annotations"]) == 1
    # pycocotools gives a perfect score to a detector that misses the crowd and finds twice within it.
    results = [
        {"image_id": 1, "category_id": 1, "bbox": [5, 6, 20, 10], "score": 0.9},
        {"image_id": 1, "category_id": 2, "bbox": [31, 11, 5, 5], "score": 0.8},
        {"image_id": 1, "category_id": 2, "bbox": [33, 14, 6, 5], "score": 0.8},
        {"image_id": 2, "category_id": 2, "bbox": [0, 0, 60, 40], "score": 0.7},
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_missing_area_crowd_flag_and_size_are_filled_in(coco: Any) -> None:
    del coco.data["annotations"][0]["area"], coco.data["annotations"][0]["iscrowd"]
    coco.data["annotations"][1]["area"] = math.nan
    del coco.data["images"][0]["width"], coco.data["images"][0]["height"]
    dataset = coco.load()
    report = dataset.report
    assert (report.missing_areas, report.missing_iscrowd, report.missing_sizes) == (2, 1, 1)
    assert dataset.original_size(0) == (40, 60)
    assert [row["area"] for row in dataset.ground_truth().dataset["annotations"]] == [200, 375, 2400]


def test_ids_with_gaps_become_labels_and_come_back(coco: Any) -> None:
    coco.data["categories"] = [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}, {"id": 44, "name": "emu"}]
    for row in coco.data["annotations"]:
        row["category_id"] = {1: 7, 2: 90}[row["category_id"]]
    dataset = coco.load()
    assert dataset.classes == ("cat", "emu", "dog")
    assert dataset.category_ids == (7, 44, 90)
    assert dataset.load(0).target["labels"].tolist() == [0, 2]
    assert dataset.report.non_contiguous_ids
    assert dataset.report.classes_without_boxes == ("emu",)
    target = dataset.load(0).target
    results = dataset.to_coco_results(0, {**target, "scores": target["boxes"][:, 0]})
    assert [row["category_id"] for row in results] == [7, 90]


def test_splits_agree_by_name_whatever_their_ids(coco: Any, make_coco: Any) -> None:
    coco.write()
    swapped = json.loads(json.dumps(coco.data))
    swapped["categories"] = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    (coco.root / "val.json").write_text(json.dumps(swapped))
    config = coco.config().model_copy(update={"val": Path("val.json")})
    datasets = load_datasets(config, coco.root)
    assert datasets.train.classes == datasets.val.classes == ("cat", "dog")
    assert datasets.val.category_ids == (2, 1)
    assert datasets.val.load(0).target["labels"].tolist() == [1, 0]
    assert datasets.test is datasets.val
    assert datasets.test_is_val
    swapped["categories"][1]["name"] = "cow"
    (coco.root / "val.json").write_text(json.dumps(swapped))
    with pytest.raises(DataError, match=r"val\.json.*lacks cat and has besides cow"):
        load_datasets(config, coco.root)


def test_warnings_are_logged_once_a_split(coco: Any, caplog: pytest.LogCaptureFixture) -> None:
    coco.data["annotations"][0]["bbox"] = [1, 1, 0, 5]
    coco.data["annotations"].append({**coco.data["annotations"][1], "id": 99, "category_id": 1})
    dataset = coco.load()
    with caplog.at_level(logging.INFO, logger="autokd.data"):
        dataset.check()
        dataset.preload()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "dropped: 1" in record.getMessage()


def test_nothing_is_printed(coco: Any, capsys: pytest.CaptureFixture[str]) -> None:
    coco.load().ground_truth()
    assert capsys.readouterr() == ("", "")


def test_box_below_half_a_pixel_is_kept_for_the_evaluation_alone(coco: Any) -> None:
    coco.data["annotations"][0]["bbox"] = [5, 6, 0.3, 10]
    dataset = coco.load()
    assert dataset.report.too_small_boxes == 1
    assert dataset.load(0).target["labels"].tolist() == [1]
    assert len(dataset.ground_truth().dataset["annotations"]) == 3


def test_clean_set_has_no_warnings(coco: Any) -> None:
    report = coco.load().check()
    assert report.warnings() == ()
    assert (report.num_images, report.num_boxes, report.num_classes) == (3, 3, 2)
    assert np.all([getattr(report, name) == 0 for name in ("clipped_boxes", "crowd_regions", "gray_images")])
