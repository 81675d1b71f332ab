"""Samples, batches, fingerprints, the way back to COCO results, and the photographs where they are present."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.cocoeval import COCOeval

from autokd.config import CocoData
from autokd.data import View, collate, load_datasets
from autokd.data.geometry import MIN_VISIBLE_FRACTION, visible_boxes
from autokd.errors import NonFiniteError


def test_collate_gives_the_contract(coco: Any) -> None:
    dataset = coco.load((64, 64))
    images_BCHW, targets = collate([dataset.load(i) for i in range(3)])
    assert images_BCHW.shape == (3, 3, 64, 64)
    assert images_BCHW.dtype == torch.float32
    assert 0 <= float(images_BCHW.min()) <= float(images_BCHW.max()) <= 1
    assert torch.equal(images_BCHW[1], dataset.load(1).image)
    assert [target["boxes"].shape for target in targets] == [(2, 4), (1, 4), (0, 4)]
    assert all(set(target) == {"boxes", "labels"} for target in targets)
    assert all(target["boxes"].dtype == torch.float32 for target in targets)
    assert all(target["labels"].dtype == torch.int64 for target in targets)


def test_boxes_are_scaled_with_the_letterbox(coco: Any) -> None:
    boxes = coco.load((80, 160)).load(0).target["boxes"]
    # 60 x 40 into 160 x 80: scale 2.
    assert boxes.tolist() == [[10, 12, 50, 32], [60, 20, 90, 70]]


def test_view_changes_image_and_boxes_and_leaves_the_kept_image(coco: Any) -> None:
    dataset = coco.load()
    before = dataset.load(0).pixels_CHW.clone()
    flipped = dataset.load(0, View(flip=True))
    assert flipped.target["boxes"].tolist() == [[35, 6, 55, 16], [15, 10, 30, 35]]
    assert torch.equal(flipped.pixels_CHW, before.flip(-1))
    zoomed = dataset.load(0, View(scale=2.0, offset=(0.0, 0.0)))
    assert zoomed.target["boxes"].tolist() == [[10, 12, 50, 32]]
    assert zoomed.target["labels"].tolist() == [0]
    assert torch.equal(dataset.load(0).pixels_CHW, before)
    assert torch.equal(dataset.target(0, View(flip=True))["boxes"], flipped.target["boxes"])


def test_box_mostly_outside_a_view_is_dropped_and_a_cut_one_clipped() -> None:
    boxes = np.array([[-7.1, 0, 2.9, 10], [-6, 0, 4, 10], [15, 15, 19, 19], [25, 25, 30, 30]])
    clipped, kept = visible_boxes(boxes, (0, 0), (20, 20))
    assert MIN_VISIBLE_FRACTION == 0.3
    assert kept.tolist() == [False, True, True, False]
    assert clipped[1].tolist() == [0, 0, 4, 10]


views = st.builds(
    View, flip=st.booleans(), scale=st.floats(0.5, 2.0), offset=st.tuples(st.floats(0, 1), st.floats(0, 1))
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(view=views, size=st.sampled_from([(40, 60), (64, 64), (33, 97)]))
def test_detections_in_any_view_come_back_to_the_original_boxes(coco: Any, view: View, size: tuple[int, int]) -> None:
    dataset = coco.load(size)
    expected = {1: [5, 6, 20, 10], 2: [30, 10, 15, 25]}
    boxes = dataset.input_from_original(0, view).apply([[5, 6, 25, 16], [30, 10, 45, 35]])
    detections = {
        "boxes": torch.from_numpy(boxes),
        "scores": torch.tensor([0.75, 0.5]),
        "labels": torch.tensor([0, 1]),
    }
    results = dataset.to_coco_results(0, detections, view)
    assert [row["score"] for row in results] == [0.75, 0.5]
    for row in results:
        assert row["image_id"] == 1
        np.testing.assert_allclose(row["bbox"], expected[row["category_id"]], atol=1e-6)
    back = dataset.load(0, view).to_original(detections["boxes"])
    np.testing.assert_allclose(back, [[5, 6, 25, 16], [30, 10, 45, 35]], atol=1e-6)


def test_results_are_clipped_to_the_image_and_plain(coco: Any) -> None:
    dataset = coco.load()
    detections = {
        "boxes": torch.tensor([[-5.0, -5.0, 70.0, 20.0]]),
        "scores": torch.tensor([0.5]),
        "labels": torch.tensor([1]),
    }
    results = dataset.to_coco_results(2, detections)
    assert json.loads(json.dumps(results)) == [{"image_id": 3, "category_id": 2, "bbox": [0, 0, 60, 20], "score": 0.5}]
    empty = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    assert dataset.to_coco_results(0, empty) == []


@pytest.mark.parametrize("key", ["boxes", "scores"])
def test_non_finite_detection_is_named(coco: Any, key: str) -> None:
    detections = {"boxes": torch.ones(1, 4), "scores": torch.ones(1), "labels": torch.zeros(1, dtype=torch.int64)}
    detections[key] = detections[key] * float("nan")
    with pytest.raises(NonFiniteError, match=r"1\.png"):
        coco.load().to_coco_results(0, detections)


def test_fingerprint_changes_with_content_and_with_nothing_else(coco: Any, make_coco: Any) -> None:
    original = coco.load().fingerprint
    assert coco.load().fingerprint == original
    copy = make_coco()  # another folder, other file times, another layout of the JSON
    copy.data["annotations"].reverse()
    copy.data["info"] = {"contributor": "someone"}
    copy.data["annotations"].sort(key=lambda row: row["id"])
    assert copy.load().fingerprint == original
    assert coco.load((80, 120)).fingerprint != original
    changes = {
        "box": lambda data: data["annotations"][0].update(bbox=[5, 6, 20, 11]),
        "label": lambda data: data["annotations"][0].update(category_id=2),
        "crowd": lambda data: data["annotations"][0].update(iscrowd=1),
        "class": lambda data: data["categories"][0].update(name="kitten"),
        "image list": lambda data: data["images"].pop(),
    }
    prints = [original]
    for change in changes.values():
        changed = make_coco()
        change(changed.data)
        prints.append(changed.load().fingerprint)
    repainted = make_coco()
    pixels = np.asarray(Image.open(repainted.image_path(1))).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(repainted.image_path(1))
    prints.append(repainted.load().fingerprint)
    assert len(set(prints)) == len(prints)


def _bccd(root: Path, **changes: Any) -> CocoData:
    files = {name: f"instances_{name}.json" for name in ("train", "val", "test")}
    return CocoData(root=root, image_size_px=(120, 160), **files, **changes)


def test_photographs_load_and_their_own_boxes_score_one(bccd_root: Path, tmp_path: Path) -> None:
    datasets = load_datasets(_bccd(bccd_root), tmp_path)
    assert datasets.classes == ("RBC", "WBC", "Platelets")
    raw = {name: json.loads((bccd_root / f"instances_{name}.json").read_text()) for name in ("train", "val", "test")}
    for split in datasets.splits:
        assert split.num_images == len(raw[split.name]["images"])
        dropped = split.report.degenerate_boxes + split.report.outside_boxes
        assert split.report.num_boxes == len(raw[split.name]["annotations"]) - dropped
    val = datasets.val
    sample = val.load(0)
    assert sample.image.shape == (3, 120, 160)
    photograph = Image.open(val.image_path(0)).convert("RGB").resize((160, 120), Image.Resampling.BOX)
    reference = np.asarray(photograph).transpose(2, 0, 1) / 255
    assert float(np.abs(sample.image.numpy() - reference).mean()) < 0.02
    results = []
    for index in range(val.num_images):
        target = val.target(index)
        results += val.to_coco_results(index, {**target, "scores": torch.ones(len(target["labels"]))})
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = val.ground_truth()
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), "bbox")
        evaluation.params.maxDets = [1, 10, 300]
        evaluation.evaluate()
        evaluation.accumulate()
    assert evaluation.eval["precision"][:, :, :, 0, 2].mean() == pytest.approx(1.0)
