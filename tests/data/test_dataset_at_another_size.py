"""A split seen at a smaller size: boxes and pixels by hand, results in the frame of the original images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autokd.data import View, load_datasets


def test_boxes_and_images_are_scaled_and_padded_as_computed_by_hand(coco):
    full = coco.load((40, 60))
    # 60 x 40 into 32 x 36: scale min(32 / 40, 36 / 60) = 0.6, so 24 rows and 36 columns are filled.
    small = full.at_size((32, 36))
    sample = small.load(0)
    assert sample.pixels_CHW.shape == (3, 32, 36)
    expected = [[5 * 0.6, 6 * 0.6, 25 * 0.6, 16 * 0.6], [30 * 0.6, 10 * 0.6, 45 * 0.6, 35 * 0.6]]
    np.testing.assert_allclose(sample.target["boxes"].numpy(), expected, rtol=1e-6)
    assert sample.target["labels"].tolist() == [0, 1]
    assert (sample.pixels_CHW[:, 24:] == torch.tensor((124, 116, 104), dtype=torch.uint8)[:, None, None]).all()
    mirrored = small.target(0, View(flip=True))["boxes"].numpy()
    np.testing.assert_allclose(mirrored[0], [36 - 15, 3.6, 36 - 3, 9.6], rtol=1e-6)


def test_a_size_is_as_if_the_set_had_been_read_at_it(coco):
    full, other = coco.load((40, 60)), coco.load((32, 48))
    small = full.at_size((32, 48))
    assert small.fingerprint == other.fingerprint != full.fingerprint
    for index in range(3):
        assert torch.equal(small.load(index).pixels_CHW, other.load(index).pixels_CHW)


def test_perfect_detections_on_smaller_images_are_perfect_on_the_originals(coco):
    small = coco.load((40, 60)).at_size((32, 33))
    for index, boxes_xywh in enumerate(([[5, 6, 20, 10], [30, 10, 15, 25]], [[0, 0, 60, 40]], [])):
        target = small.target(index)
        rows = small.to_coco_results(index, {**target, "scores": torch.ones(len(target["labels"]))})
        np.testing.assert_allclose([row["bbox"] for row in rows], boxes_xywh, atol=1e-4)


def test_splits_that_are_one_stay_one_and_the_own_size_is_the_set_itself(coco, tmp_path):
    coco.write()
    datasets = load_datasets(coco.config(), tmp_path)
    small = datasets.at_size((32, 48))
    assert small.test is small.val
    assert small.test_is_val
    assert datasets.at_size((40, 60)) is datasets


@pytest.mark.parametrize("limit", [0, 2**31])
def test_the_memory_limit_holds_at_every_size(coco, limit):
    assert coco.load((40, 60), memory_limit_bytes=limit).at_size((32, 32)).keeps_images == (limit > 0)
