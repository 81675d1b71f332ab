"""Batches: the right pictures in the right views, loaded ahead or not."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
import torch

from autokd.config import Recipe
from autokd.data import load_datasets, stack_samples
from autokd.training.assets import TrainingAssets
from autokd.training.loader import Loader, identity_plan, training_plan
from autokd.training.prefetch import decoding_threads, made_ahead

CPU = torch.device("cpu")


@pytest.fixture
def loader(tiny_data) -> Loader:
    return Loader(tiny_data.train, training_plan(tiny_data.train, Recipe()), 3, CPU)


def test_an_epoch_shows_every_image_once_in_the_planned_view(loader, tiny_data):
    batches = list(loader.epoch(seed=0, epoch=1))
    pairs = [pair for batch in batches for pair in batch.pairs]
    assert sorted(index for index, _ in pairs) == list(range(8))
    assert [batch.num_images for batch in batches] == [3, 3, 2]
    images = torch.cat([batch.images_BCHW for batch in batches])
    targets = [target for batch in batches for target in batch.targets]
    for (index, number), image_CHW, target in zip(pairs, images, targets):
        sample = tiny_data.train.load(index, loader.plan.view(index, number))
        assert torch.equal(image_CHW, sample.pixels_CHW / 255)
        assert torch.equal(target["boxes"], sample.target["boxes"])


def test_order_depends_on_seed_and_epoch_alone(loader):
    def order(seed: int, epoch: int) -> list:
        return [batch.pairs for batch in loader.epoch(seed, epoch)]

    first = order(0, 1)
    torch.rand(5)
    assert order(0, 1) == first
    assert order(1, 1) != first != order(0, 2)
    assert loader.steps_per_epoch(0) == 3


def test_validation_batches_are_the_images_as_they_are_in_order(tiny_data):
    loader = Loader(tiny_data.val, identity_plan(tiny_data.val), 4, CPU)
    batches = list(loader.in_order())
    assert [batch.pairs for batch in batches] == [((0, 0), (1, 0), (2, 0), (3, 0)), ((4, 0), (5, 0))]
    assert torch.equal(batches[1].images_BCHW[1], tiny_data.val.load(5).image)
    assert len(Loader(tiny_data.val, loader.plan, 4, CPU, subset=0.5).indices()) == 3
    chosen = Loader(tiny_data.val, loader.plan, 4, CPU, choose=lambda seed: (1, 4))
    assert chosen.indices() == (1, 4)
    assert [index for batch in chosen.in_order() for index, _ in batch.pairs] == [1, 4]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_loading_ahead_gives_the_same_batches_in_the_same_order(loader, threads):
    alone, ahead = (list(replace(loader, threads=n).epoch(seed=0, epoch=1)) for n in (0, threads))
    assert [batch.pairs for batch in ahead] == [batch.pairs for batch in alone]
    for one, other in zip(ahead, alone):
        assert torch.equal(one.images_BCHW, other.images_BCHW)
        for target, same in zip(one.targets, other.targets):
            assert torch.equal(target["boxes"], same["boxes"])
            assert torch.equal(target["labels"], same["labels"])
            assert target["labels"].dtype == torch.int64


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_items_are_made_in_order_and_an_error_is_raised_at_its_place(threads):
    def slow_at_first(item: int) -> int:
        time.sleep(0.02 * (item == 0))
        if item == 7:
            raise ValueError("image 7")
        return item

    read = []
    with pytest.raises(ValueError, match="image 7"):
        read.extend(made_ahead(slow_at_first, range(20), threads))
    assert read == list(range(7))


def test_no_more_is_made_ahead_than_two_items_a_thread():
    made, items = [], iter(range(1000))
    ahead = made_ahead(lambda item: made.append(item) or item, items, 2)
    next(ahead)
    time.sleep(0.05)
    assert next(items) == 5  # four were begun at once, one more when the first was read
    ahead.close()


def test_leaving_the_loop_early_ends_the_loading_threads():
    before = threading.active_count()
    ahead = made_ahead(lambda x: x, range(1000), 4)
    next(ahead)
    ahead.close()
    assert threading.active_count() == before


def test_a_cpu_loads_in_the_thread_that_trains_and_a_gpu_by_several():
    assert decoding_threads(CPU) == 0
    assert 1 <= decoding_threads(torch.device("cuda")) <= 8


def test_a_batch_is_two_tensors_in_the_hosts_memory(tiny_data):
    samples = [tiny_data.train.load(index) for index in range(3)]
    host = stack_samples(samples)
    assert host.pixels_BCHW.dtype == torch.uint8
    assert host.packed.shape == (5 * sum(len(sample.target["labels"]) for sample in samples),)
    images_BCHW, targets = host.to("cpu")
    for sample, image_CHW, target in zip(samples, images_BCHW, targets, strict=True):
        assert torch.equal(image_CHW, sample.image)
        assert torch.equal(target["boxes"], sample.target["boxes"])
        assert torch.equal(target["labels"], sample.target["labels"])


def test_images_without_boxes_are_stacked_too(tiny_data):
    sample = tiny_data.train.load(0)
    empty = replace(sample, target={"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)})
    _, targets = stack_samples([empty, sample, empty]).to("cpu")
    assert [len(target["boxes"]) for target in targets] == [0, len(sample.target["boxes"]), 0]
    _, targets = stack_samples([empty]).to("cpu")
    assert targets[0]["boxes"].shape == (0, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gets_the_batches_that_a_cpu_gets(loader):
    on_gpu = list(replace(loader, device=torch.device("cuda")).epoch(seed=0, epoch=1))
    for batch, same in zip(on_gpu, loader.epoch(seed=0, epoch=1), strict=True):
        assert torch.equal(batch.images_BCHW.cpu(), same.images_BCHW)
        for target, other in zip(batch.targets, same.targets, strict=True):
            assert torch.equal(target["boxes"].cpu(), other["boxes"])
            assert torch.equal(target["labels"].cpu(), other["labels"])


def test_the_setting_decides_how_many_threads_decode_and_no_pixel(make_tiny_config, tiny_cache, monkeypatch):
    def images(threads):
        config, names = make_tiny_config(runtime={"decode_threads": threads}), set()
        data = TrainingAssets(config, tiny_cache, CPU, load_datasets(config.data, tiny_cache, check=False)).data
        load = data.full.train.load

        def observed(*args):
            names.add(threading.current_thread().name)
            return load(*args)

        monkeypatch.setattr(data.full.train, "load", observed)
        found = torch.cat([batch.images_BCHW for batch in data.training_loader("full").epoch(0, 1)])
        assert all(name.startswith("autokd-loader") for name in names) == (threads > 0)
        return found

    assert torch.equal(images(0), images(3))
