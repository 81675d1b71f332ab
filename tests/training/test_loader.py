"""Batches: the right pictures in the right views, loaded ahead or not."""

from __future__ import annotations

import threading

import pytest
import torch

from autokd.config import Recipe
from autokd.training.loader import Loader, identity_plan, one_ahead, training_plan

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


def test_loading_ahead_keeps_the_order():
    assert list(one_ahead(lambda x: x * x, range(20))) == [x * x for x in range(20)]


def test_an_error_while_loading_ahead_is_raised_in_the_loop():
    def broken(item: int) -> int:
        if item == 2:
            raise ValueError("image 2")
        return item

    with pytest.raises(ValueError, match="image 2"):
        list(one_ahead(broken, range(5)))


def test_leaving_the_loop_early_ends_the_loading_thread():
    before = threading.active_count()
    ahead = one_ahead(lambda x: x, range(1000))
    next(ahead)
    ahead.close()
    assert threading.active_count() == before
