"""AP by hand, and against pycocotools called directly with all its settings."""

from __future__ import annotations

import contextlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from autokd.training.measure.average_precision import PrecisionMeter


def coco_of(annotations: list[dict], num_images: int, category_ids: list[int]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i, "width": 100, "height": 100} for i in range(1, num_images + 1)],
        "annotations": [
            {"id": n, "iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a} for n, a in enumerate(annotations, 1)
        ],
        "categories": [{"id": c, "name": f"class {c}"} for c in category_ids],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def meter_of(coco: COCO) -> PrecisionMeter:
    """A data set as far as the meter looks at it."""
    ids = tuple(sorted(coco.cats))
    dataset = SimpleNamespace(
        classes=tuple(coco.cats[i]["name"] for i in ids),
        category_ids=ids,
        image_ids=tuple(sorted(coco.imgs)),
        num_images=len(coco.imgs),
        ground_truth=lambda: coco,
    )
    return PrecisionMeter(dataset)  # type: ignore[arg-type]


def test_finding_one_of_two_objects_exactly_scores_51_of_101_recall_points():
    coco = coco_of([{"image_id": 1, "category_id": 3, "bbox": b} for b in ([0, 0, 20, 20], [50, 50, 20, 20])], 1, [3])
    found = [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 20, 20], "score": 0.9}]
    precision = meter_of(coco).score(found)
    assert precision.map_50_95 == pytest.approx(51 / 101)
    assert precision.per_class == {"class 3": pytest.approx(51 / 101)}


def test_a_box_of_iou_0_6_counts_at_three_of_ten_thresholds():
    # 12 of 20 wide: intersection 240, union 400, IoU 0.6: found at 0.50, 0.55 and 0.60.
    coco = coco_of([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20]}], 1, [1])
    precision = meter_of(coco).score([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 12, 20], "score": 0.5}])
    assert precision.map_50_95 == pytest.approx(0.3)
    assert precision.map_50 == pytest.approx(1.0)


def test_classes_without_objects_are_left_out_and_nothing_found_scores_zero():
    coco = coco_of([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20]}], 1, [1, 2])
    precision = meter_of(coco).score([])
    assert (precision.map_50_95, dict(precision.per_class)) == (0.0, {"class 1": 0.0})
    # A false alarm of the absent class changes nothing, as in COCO's own evaluation.
    found = [{"image_id": 1, "category_id": 2, "bbox": [0, 0, 20, 20], "score": 0.9}]
    assert dict(meter_of(coco).score(found).per_class) == {"class 1": 0.0}


@pytest.fixture
def random_case() -> tuple[COCO, list[dict]]:
    rng = np.random.default_rng(5)
    truth, found = [], []
    for image in range(1, 13):
        for _ in range(rng.integers(0, 6)):
            category, box = int(rng.integers(1, 4)), rng.uniform([0, 0, 8, 8], [60, 60, 40, 40])
            truth.append({"image_id": image, "category_id": category, "bbox": box.tolist()})
            if rng.random() < 0.8:
                shaken = (box + rng.normal(size=4) * 2).clip(0).tolist()
                found.append({"image_id": image, "category_id": category, "bbox": shaken, "score": float(rng.random())})
        found.append(
            {
                "image_id": image,
                "category_id": int(rng.integers(1, 4)),
                "bbox": [5, 5, 20, 20],
                "score": float(rng.random()),
            }
        )
    truth[0]["iscrowd"] = 1
    return coco_of(truth, 12, [1, 2, 3]), found


def test_ap_equals_pycocotools_called_directly(random_case, capsys):
    coco, found = random_case
    precision = meter_of(coco).score(found)
    assert capsys.readouterr().out == ""
    direct = COCOeval(coco, coco.loadRes(json.loads(json.dumps(found))), "bbox")
    direct.evaluate()
    direct.accumulate()
    direct.summarize()
    assert precision.map_50_95 == pytest.approx(direct.stats[0], abs=1e-12)
    assert precision.map_50 == pytest.approx(direct.stats[1], abs=1e-12)
    per_class = direct.eval["precision"][:, :, :, 0, -1].transpose(2, 0, 1).reshape(3, -1).mean(1)
    assert list(precision.per_class.values()) == pytest.approx(per_class)


def test_a_part_of_the_images_is_judged_alone(random_case):
    coco, found = random_case
    some = [1, 4, 7]
    precision = meter_of(coco).score([f for f in found if f["image_id"] in some], indices=[i - 1 for i in some])
    direct = COCOeval(coco, coco.loadRes(json.loads(json.dumps(found))), "bbox")
    direct.params.imgIds = some
    direct.evaluate()
    direct.accumulate()
    direct.summarize()
    assert precision.map_50_95 == pytest.approx(direct.stats[0], abs=1e-12)


@pytest.fixture
def sized_case() -> tuple[COCO, list[dict]]:
    """Objects of 4 to 200 px, crowds, equal scores, more than a hundred detections in an image."""
    rng = np.random.default_rng(8)
    truth, found = [], []
    for image in range(1, 9):
        for _ in range(rng.integers(3, 9)):
            side = np.exp(rng.uniform(np.log(4), np.log(200), 2))
            box = np.concatenate([rng.uniform(0, 300, 2), side])
            category = int(rng.integers(1, 4))
            truth.append({"image_id": image, "category_id": category, "bbox": box.tolist()})
            for _ in range(rng.integers(0, 4)):
                shaken = (box * (1 + rng.normal(size=4) * 0.08)).tolist()
                score = round(float(rng.random()), 1)
                found.append({"image_id": image, "category_id": category, "bbox": shaken, "score": score})
    for each in truth[::7]:
        each["iscrowd"] = 1
    found += [
        {"image_id": 1, "category_id": 1, "bbox": [*rng.uniform(0, 300, 2).tolist(), 20, 20], "score": 0.55}
        for _ in range(120)
    ]
    return coco_of(truth, 8, [1, 2, 3]), found


def test_ap_by_size_equals_pycocotools_with_crowds_ties_and_too_many_detections(sized_case):
    coco, found = sized_case
    precision = meter_of(coco).score(found, by_size=True)
    direct = COCOeval(coco, coco.loadRes(json.loads(json.dumps(found))), "bbox")
    direct.evaluate()
    direct.accumulate()
    direct.summarize()
    assert precision.map_50_95 == pytest.approx(direct.stats[0], abs=1e-12)
    assert list(precision.per_size) == ["small", "medium", "large"]
    assert list(precision.per_size.values()) == pytest.approx(direct.stats[3:6], abs=1e-12)
    assert min(precision.per_size.values()) > 0


def test_a_size_without_objects_is_left_out():
    coco = coco_of([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20]}], 1, [1])
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.5}]
    assert meter_of(coco).score(found, by_size=True).per_size == {"small": pytest.approx(1.0)}
    assert meter_of(coco).score(found).per_size == {}


def test_scoring_twice_gives_the_same_and_leaves_annotations_and_detections_alone(sized_case):
    coco, found = sized_case
    meter, before = meter_of(coco), json.dumps([coco.dataset["images"], found])
    first, second = (meter.score(found, by_size=True) for _ in range(2))
    assert first == second
    assert json.dumps([coco.dataset["images"], found]) == before
