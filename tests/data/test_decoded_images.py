"""Decoded images of small sets: one store a machine, equal to what each process would decode."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autokd.data import load_datasets
from autokd.data.decoded_images import DECODED_FOLDER
from autokd.errors import DataError


def stores(cache_dir: Path) -> list[Path]:
    return [path for path in (cache_dir / DECODED_FOLDER).glob("*") if path.is_dir()]


def test_images_of_the_store_are_those_that_a_process_decodes(coco, tmp_path):
    coco.write()
    shared = load_datasets(coco.config(), tmp_path / "cache").train
    alone = load_datasets(coco.config(), tmp_path / "cache", memory_limit_bytes=1).train
    for index in range(shared.num_images):
        assert torch.equal(shared.load(index).pixels_CHW, alone.load(index).pixels_CHW)
    assert len(stores(tmp_path / "cache")) == 1, "val is the same file, so it has the same content"


def _pixels(config, cache_dir, queue):
    dataset = load_datasets(config, cache_dir).train
    # With the images gone, only the store can answer.
    for index in range(dataset.num_images):
        dataset.image_path(index).unlink(missing_ok=True)
    queue.put(dataset.load(1).pixels_CHW.numpy().copy())


def test_another_process_reads_the_store(coco, tmp_path):
    coco.write()
    expected = load_datasets(coco.config(), tmp_path / "cache").train.load(1).pixels_CHW.numpy().copy()
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_pixels, args=(coco.config(), tmp_path / "cache", queue))
    process.start()
    process.join(120)
    np.testing.assert_array_equal(queue.get(), expected)


def test_another_image_or_size_is_another_store(coco, tmp_path):
    coco.write()
    load_datasets(coco.config(), tmp_path / "cache").train.load(0)
    Image.fromarray(np.full((40, 60, 3), 7, dtype=np.uint8)).save(coco.image_path(1))
    changed = load_datasets(coco.config(), tmp_path / "cache").train
    assert (changed.load(0).pixels_CHW == 7).all()
    changed.at_size((20, 30)).load(0)
    assert len(stores(tmp_path / "cache")) == 3


def test_a_damaged_store_is_made_again(coco, tmp_path):
    coco.write()
    expected = load_datasets(coco.config(), tmp_path / "cache").train.load(0).pixels_CHW.clone()
    [folder] = stores(tmp_path / "cache")
    with (folder / "images.npy").open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"\x00\x01\x02")
    assert torch.equal(load_datasets(coco.config(), tmp_path / "cache").train.load(0).pixels_CHW, expected)


def test_a_broken_image_is_the_error_of_its_own_index(coco, tmp_path):
    coco.write()
    datasets = load_datasets(coco.config(), tmp_path / "cache")
    good = datasets.train.image_path(1)
    datasets.train.image_path(0).write_bytes(good.read_bytes()[:200])
    datasets.train.load(1)
    with pytest.raises(DataError, match=r"1\.png"):
        datasets.train.load(0)
    assert not stores(tmp_path / "cache")
