"""A global batch divided among ranks: together they see what one process sees, in its order."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from autokd.config import Recipe
from autokd.training.loader import Loader, training_plan
from autokd.training.shards import ALONE, RankGroup

CPU = torch.device("cpu")


@pytest.fixture
def loader(tiny_data) -> Loader:
    return Loader(tiny_data.train, training_plan(tiny_data.train, Recipe()), 3, CPU)  # 8 images: batches of 3, 3, 2


@pytest.mark.parametrize("count", [2, 3])
def test_shares_in_the_order_of_ranks_are_the_batches_of_one_process(loader, count):
    whole = list(loader.epoch(seed=4, epoch=2))
    by_rank = [list(replace(loader, ranks=RankGroup(rank, count)).epoch(seed=4, epoch=2)) for rank in range(count)]
    for step, batch in enumerate(whole):
        own = [batches[step] for batches in by_rank]
        if len(batch.pairs) < count:
            continue
        assert sum((part.pairs for part in own), ()) == batch.pairs
        assert torch.equal(torch.cat([part.images_BCHW for part in own]), batch.images_BCHW)
        targets = [target for part in own for target in part.targets]
        for part in own:
            assert part.shard.global_pairs == batch.pairs
            assert torch.equal(part.images_BCHW, batch.images_BCHW[part.shard.rows])
        for ours, theirs, everywhere in zip(targets, batch.targets, own[0].global_targets, strict=True):
            assert torch.equal(ours["boxes"], theirs["boxes"])
            assert torch.equal(everywhere["boxes"], theirs["boxes"])
            assert torch.equal(everywhere["labels"], theirs["labels"])


def test_sizes_differ_by_one_at_most_and_weights_add_up():
    pairs = [(index, 0) for index in range(11)]
    shards = [RankGroup(rank, 4).shard(pairs) for rank in range(4)]
    assert [len(shard.local_pairs) for shard in shards] == [3, 3, 3, 2]
    assert [shard.weight for shard in shards] == pytest.approx([3 / 11, 3 / 11, 3 / 11, 2 / 11])


def test_a_batch_of_fewer_images_than_ranks_is_computed_whole_by_each():
    shards = [RankGroup(rank, 3).shard([(7, 1), (2, 0)]) for rank in range(3)]
    assert [shard.local_pairs for shard in shards] == [((7, 1), (2, 0))] * 3
    assert not any(shard.is_split for shard in shards)
    assert sum(shard.weight for shard in shards) == pytest.approx(1)


def test_one_process_gets_plain_batches(loader):
    assert all(batch.shard is None for batch in loader.epoch(0, 1))
    assert RankGroup.current() == ALONE
    assert next(iter(replace(loader, ranks=RankGroup(1, 2)).in_order())).shard is None
