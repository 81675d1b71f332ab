"""Shards of the global batches: which images a rank takes if several processes share a training.

The global batches are those that one process would see, in the same order. A rank takes consecutive images of each, so
that tensors gathered from all ranks, one after the other, are in the order of the global batch. This module alone asks
torch.distributed which rank this process is.

Legend: G images of a global batch, B those of a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist

Pair = tuple[int, int]
"""(image index, view number)."""


@dataclass(frozen=True, slots=True)
class RankGroup:
    """The processes that share a training, seen from one of them: ``rank`` of ``count``."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def current() -> RankGroup:
        """Return the group that torch.distributed was initialized with; a process without one is alone."""
        if dist.is_available() and dist.is_initialized():
            return RankGroup(dist.get_rank(), dist.get_world_size())
        return ALONE

    @property
    def is_alone(self) -> bool:
        return self.count == 1

    def agree_on(self, number: int) -> bool:
        """Return whether all processes give the same number; each must call this."""
        if self.is_alone:
            return True
        found: list[int | None] = [None] * self.count
        dist.all_gather_object(found, number)
        return len(set(found)) == 1

    def from_first(self, value: bool) -> bool:
        """Return the first process's value on all of them; each must call this."""
        if self.is_alone:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def shard(self, pairs: Sequence[Pair]) -> BatchShard:
        """Return this rank's shard of a global batch.

        Args:
            pairs: the G images of the global batch.

        Returns:
            A shard of G / ``count`` images, rounded up on the first ranks and down on the others. A batch of fewer
            images than ranks is not split, since a rank without images could not take part in the exchanges: every
            rank computes all of it, and counts for 1 / ``count``.
        """
        global_pairs = tuple(pairs)
        num_images = len(global_pairs)
        if num_images < self.count:
            return BatchShard(global_pairs, (num_images,) * self.count, self.rank, is_split=False)
        least, more = divmod(num_images, self.count)
        sizes = tuple(least + (rank < more) for rank in range(self.count))
        return BatchShard(global_pairs, sizes, self.rank, is_split=True)


ALONE = RankGroup()


@dataclass(frozen=True, slots=True)
class BatchShard:
    """A rank's part of a global batch.

    Attributes:
        global_pairs: the G images of the global batch.
        sizes: number of images of each rank.
        rank: this process.
        is_split: False if every rank has the whole batch.
    """

    global_pairs: tuple[Pair, ...]
    sizes: tuple[int, ...]
    rank: int
    is_split: bool

    @property
    def rows(self) -> slice:
        """Position of this rank's B images among the G of the global batch."""
        if not self.is_split:
            return slice(0, len(self.global_pairs))
        start = sum(self.sizes[: self.rank])
        return slice(start, start + self.sizes[self.rank])

    @property
    def local_pairs(self) -> tuple[Pair, ...]:
        """This rank's B images."""
        return self.global_pairs[self.rows]

    @property
    def weight(self) -> float:
        """Factor by which a mean over this rank's images enters the mean over the global batch."""
        return self.sizes[self.rank] / sum(self.sizes)
