"""Which part of every global batch a rank takes, where several processes share a training.

The global batches are those of one process, in its order; ranks take neighbouring parts, so that what ranks know can
be put together again in that order. torch.distributed is asked only here for who this process is.

Legend: G images of a global batch, B those of a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist

Pair = tuple[int, int]
"""(image index, view number)."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Who shares a training: this process is ``rank`` of ``count``."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def current() -> Ranks:
        """What torch's process group says; alone where there is none."""
        if dist.is_available() and dist.is_initialized():
            return Ranks(dist.get_rank(), dist.get_world_size())
        return ALONE

    @property
    def is_alone(self) -> bool:
        return self.count == 1

    def share(self, pairs: Sequence[Pair]) -> Share:
        """This rank's part of a global batch; sizes differ by one at most, the first ranks have the greater ones.

        A batch of fewer images than ranks is not split: every rank computes all of it, and counts for 1 / ``count``.
        """
        whole = tuple(pairs)
        if len(whole) < self.count:
            return Share(whole, (len(whole),) * self.count, self.rank, is_split=False)
        least, more = divmod(len(whole), self.count)
        return Share(whole, tuple(least + (rank < more) for rank in range(self.count)), self.rank, is_split=True)


ALONE = Ranks()


@dataclass(frozen=True, slots=True)
class Share:
    """A rank's part of a global batch. ``whole``: the pairs of all G images; ``sizes``: images of each rank.

    ``is_split`` False: every rank has the whole batch.
    """

    whole: tuple[Pair, ...]
    sizes: tuple[int, ...]
    rank: int
    is_split: bool

    @property
    def rows(self) -> slice:
        """Where this rank's images stand among those of the whole batch."""
        if not self.is_split:
            return slice(0, len(self.whole))
        start = sum(self.sizes[: self.rank])
        return slice(start, start + self.sizes[self.rank])

    @property
    def own(self) -> tuple[Pair, ...]:
        """The pairs of this rank's B images."""
        return self.whole[self.rows]

    @property
    def weight(self) -> float:
        """What a mean over this rank's images adds to the mean over the batch."""
        return self.sizes[self.rank] / sum(self.sizes)
