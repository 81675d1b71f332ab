"""Two frames: each image in the one that lies as it does, boxes there and back by independent arithmetic."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from autokd.config import CocoData
from autokd.data import IDENTITY, DetectionDataset, View, epoch_batches, load_datasets, plan_views
from autokd.data.orientation import Frames, gain_of_two, grouped

FRAME = (32, 48)
SIZES = [(30, 60), (60, 30), (50, 50), (90, 40), (40, 90), (64, 32), (32, 48), (48, 32)]
"""(height, width) of the images; those at 1, 3, 5, 7 stand upright."""
UPRIGHT = [1, 3, 5, 7]
BOX = (6, 9, 12, 15)
"""xywh of each image's box."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("upright")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for number, (height, width) in enumerate(SIZES, start=1):
        pixels = np.full((height, width, 3), 40 + 20 * number, dtype=np.uint8)
        pixels[:, :, 0] = rng.integers(0, 255, (height, width))
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": list(BOX), "iscrowd": 0, "area": 180})
    coco = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
    (root / "all.json").write_text(json.dumps(coco))
    return root


@pytest.fixture(scope="module")
def load(folder, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def make(orientations, size=FRAME, limit=2**31) -> DetectionDataset:
        data = CocoData(root=folder, train="all.json", val="all.json", image_size_px=size, orientations=orientations)
        return load_datasets(data, cache, check=False, memory_limit_bytes=limit).train

    return make


def in_own_frame(height, width):
    """Return (frame, factor) of an image by plain arithmetic."""
    frame = (48, 32) if height > width else (32, 48)
    return frame, min(frame[0] / height, frame[1] / width)


@pytest.mark.parametrize("limit", [2**31, 0], ids=["kept", "decoded each time"])
def test_each_image_and_its_boxes_lie_in_the_frame_of_its_orientation(load, limit):
    dataset = load("two", limit=limit)
    for index, (height, width) in enumerate(SIZES):
        frame, scale = in_own_frame(height, width)
        sample = dataset.load(index)
        assert sample.image.shape == (3, *frame)
        x, y, w, h = BOX
        expected = [scale * x, scale * y, scale * (x + w), scale * (y + h)]
        assert sample.target["boxes"][0].tolist() == pytest.approx(expected, abs=0.6)
        filled = round(height * scale), round(width * scale)
        own = 40 + 20 * (index + 1)
        assert (sample.pixels_CHW[1, : filled[0], : filled[1]] == own).all()
        assert not (sample.pixels_CHW[1, filled[0] :] == own).any()


def test_detections_come_back_to_pixels_of_the_original_image(load):
    dataset = load("two")
    for index in range(len(SIZES)):
        boxes = dataset.load(index).target["boxes"]
        found = {"boxes": boxes, "scores": torch.ones(1), "labels": torch.zeros(1, dtype=torch.int64)}
        (row,) = dataset.to_coco_results(index, found)
        assert row["bbox"] == pytest.approx(BOX, abs=1e-3)


def test_a_batch_has_one_frame_and_an_epoch_shows_every_image_once(load):
    turned = load("two").frames.turned_N
    assert np.flatnonzero(turned).tolist() == UPRIGHT
    batches = epoch_batches(8, 3, seed=1, epoch=2, num_views=None, turned_N=turned)
    assert sorted(index for batch in batches for index, _ in batch) == list(range(8))
    assert all(len({bool(turned[index]) for index, _ in batch}) == 1 for batch in batches)
    assert [len(batch) for batch in batches] == [3, 3, 1, 1]  # those that are not full come last
    assert batches == epoch_batches(8, 3, seed=1, epoch=2, num_views=None, turned_N=turned)
    assert batches != epoch_batches(8, 3, seed=1, epoch=3, num_views=None, turned_N=turned)


def test_frames_alternate_over_an_epoch_of_many_images():
    turned = np.arange(400) % 4 == 0
    batches = epoch_batches(400, 10, seed=0, epoch=1, num_views=2, turned_N=turned)
    kinds = [bool(turned[batch[0][0]]) for batch in batches]
    assert Counter(kinds) == {False: 30, True: 10}
    assert all(set(part) == {False, True} for part in (kinds[:10], kinds[-10:]))


def test_with_one_frame_batches_are_what_they_were():
    pairs = [(index, 1) for index in (4, 2, 7, 0, 1)]
    assert grouped(pairs, 2, np.zeros(8, dtype=bool)) == [pairs[:2], pairs[2:4], pairs[4:]]
    assert grouped(pairs, 2, np.ones(8, dtype=bool)) == [pairs[:2], pairs[2:4], pairs[4:]]


def test_auto_takes_two_frames_where_pictures_fill_a_tenth_more(load):
    assert load("auto").frames.has_two
    assert not load("auto", size=(48, 48)).frames.has_two  # turned, a square is the same
    sizes = np.array([(480, 640)] * 99 + [(640, 480)])
    assert gain_of_two((480, 640), sizes) == pytest.approx((99 + 1) / (99 + 0.75**2), rel=1e-3)
    assert Frames.two((480, 640), sizes).num_turned == 1


def test_caches_know_sets_of_two_frames_from_those_of_one(load):
    assert load("one").fingerprint != load("two").fingerprint == load("auto").fingerprint
    assert load("two").at_size((64, 96)).frames.of(1) == (96, 64)


def test_mosaics_and_mixtures_of_images_that_lie_differently(load):
    dataset = load("two")
    plan = plan_views(8, None, 3, 0.5, (0.8, 1.3), color_jitter=0.2, mosaic_probability=0.5, mixup_probability=0.7)
    kinds = set()
    for index in range(8):
        for number in range(1, 9):
            view = plan.view(index, number)
            sample = dataset.load(index, view)
            height, width = dataset.frames.of(index)
            assert sample.pixels_CHW.shape == (3, height, width)
            boxes = sample.target["boxes"]
            assert ((boxes >= 0) & (boxes <= torch.tensor([width, height] * 2))).all()
            others = [] if view.mixed_with is None else [view.mixed_with[0]]
            kinds |= {dataset.frames.of(other) == (height, width) for other in others}
    assert kinds == {True, False}


def test_the_other_image_of_a_mixture_is_scaled_into_the_frame_with_its_boxes(load):
    dataset = load("two")
    view = View(mixed_with=(1, IDENTITY))  # 60 x 30, upright, into 32 x 48
    boxes = dataset.load(0, view).target["boxes"]
    scale = 32 / 60
    x, y, w, h = BOX
    assert boxes[1].tolist() == pytest.approx([scale * x, scale * y, scale * (x + w), scale * (y + h)], abs=0.6)
