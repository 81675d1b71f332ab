"""Batches of an epoch: everything once, in an order and in views that can be replayed."""

from __future__ import annotations

from collections import Counter

import pytest

from autokd.data import epoch_batches, subset_indices, view_numbers


@pytest.mark.parametrize(("num_images", "batch_size"), [(10, 4), (12, 4), (3, 8), (1, 1)])
def test_every_image_comes_once_an_epoch(num_images: int, batch_size: int) -> None:
    batches = epoch_batches(num_images, batch_size, seed=0, epoch=3, num_views=2)
    assert sorted(index for batch in batches for index, _ in batch) == list(range(num_images))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= batch_size


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first = epoch_batches(50, 8, seed=1, epoch=2, num_views=2)
    assert epoch_batches(50, 8, seed=1, epoch=2, num_views=2) == first
    assert epoch_batches(50, 8, seed=1, epoch=3, num_views=2) != first
    assert epoch_batches(50, 8, seed=2, epoch=2, num_views=2) != first


def test_views_of_an_image_come_in_turn_and_an_epoch_mixes_them() -> None:
    seen: dict[int, list[int]] = {}
    for epoch in range(6):
        batches = epoch_batches(90, 8, seed=0, epoch=epoch, num_views=3)
        for index, number in (pair for batch in batches for pair in batch):
            assert number == view_numbers(90, 0, epoch, 3)[index]
            seen.setdefault(index, []).append(number)
        mixed = Counter(number for batch in batches for _, number in batch)
        assert min(mixed.values()) >= 15
    for numbers in seen.values():
        assert sorted(numbers[:3]) == [0, 1, 2]
        assert numbers[3:] == numbers[:3]


def test_subset_is_the_same_in_every_epoch_and_its_views_are_those_of_the_whole() -> None:
    chosen = subset_indices(40, 0.25, seed=5)
    assert len(chosen) == 10
    assert chosen == tuple(sorted(chosen))
    for epoch in range(3):
        pairs = [pair for batch in epoch_batches(40, 4, 5, epoch, 2, subset=0.25) for pair in batch]
        whole = {pair for batch in epoch_batches(40, 4, 5, epoch, 2) for pair in batch}
        assert sorted(index for index, _ in pairs) == list(chosen)
        assert set(pairs) <= whole
    assert subset_indices(40, 0.25, seed=6) != chosen


@pytest.mark.parametrize(("count", "fraction", "expected"), [(30, 0.1, 3), (10, 0.01, 1), (7, 0.5, 4), (9, 1.0, 9)])
def test_subset_is_rounded_up(count: int, fraction: float, expected: int) -> None:
    assert len(subset_indices(count, fraction, seed=0)) == expected
    assert subset_indices(count, None, seed=0) == tuple(range(count))
