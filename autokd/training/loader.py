"""Batches of a data set: which images in which views, loaded and collated, one thread ahead at most.

Legend: B images of a batch, C colours, H x W pixels of the network's input.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from autokd.config import Recipe
from autokd.data import (
    DetectionDataset,
    Target,
    ViewPlan,
    collate,
    epoch_batches,
    plan_views,
    subset_indices,
)
from autokd.training.shards import ALONE, BatchShard, RankGroup

PLAN_SEED = 0
"""Every seed of a search shares one plan of views, so that the teacher's taps are computed once."""

EVALUATION_BATCH_SIZE = 16
"""Images of a batch without gradients: validation, AP, a teacher that fills its cache."""

SUBSET_SEED = 0
"""Chooses the part of the validation images that a proxy is judged by."""

Pairs = Sequence[tuple[int, int]]
"""(image index, view number) of each image of a batch."""


@dataclass(frozen=True, eq=False)
class Batch:
    """images_BCHW: float32 in [0, 1]. ``pairs``: (image index, view number) of each image.

    Where ranks share the training, ``shard`` says what of the global batch this is, and ``global_targets`` are those
    of all its images.
    """

    pairs: tuple[tuple[int, int], ...]
    images_BCHW: Tensor
    targets: list[Target]
    shard: BatchShard | None = None
    global_targets: list[Target] = field(default_factory=list)

    @property
    def num_images(self) -> int:
        return len(self.pairs)


def training_plan(dataset: DetectionDataset, recipe: Recipe) -> ViewPlan:
    """The replayable views of the training images under ``recipe``."""
    return plan_views(dataset.num_images, recipe.num_views, PLAN_SEED, recipe.flip_probability, recipe.scale_range)


def identity_plan(dataset: DetectionDataset) -> ViewPlan:
    """One view of each image: as it is. For validation."""
    return plan_views(dataset.num_images, 1, PLAN_SEED, 0.0, (1.0, 1.0))


@dataclass(frozen=True, eq=False)
class Loader:
    """The batches of one split under one plan of views; ``subset`` is the fraction of images that is used.

    ``choose``: gives, for a seed, the images of its epochs; None: ``subset`` of them at random.
    ``ranks``: who shares each batch of an epoch; the other ways of going through the images give them whole.
    """

    dataset: DetectionDataset
    plan: ViewPlan
    batch_size: int
    device: torch.device
    subset: float = 1.0
    ranks: RankGroup = ALONE
    choose: Callable[[int], Sequence[int]] | None = None

    def steps_per_epoch(self, seed: int) -> int:
        return len(self._epoch_pairs(seed, 1))

    def epoch(self, seed: int, epoch: int, max_steps: int | None = None) -> Iterator[Batch]:
        """The shuffled batches of one epoch (1-based), or this rank's share of each: a function of (seed, epoch).

        max_steps: only the first so many.
        """
        batches = self._epoch_pairs(seed, epoch)[:max_steps]
        if self.ranks.is_alone:
            return self.of_pairs(batches)
        shards = [self.ranks.shard(pairs) for pairs in batches]
        return map(self._with_shard, self.of_pairs([shard.local_pairs for shard in shards]), shards)

    def _with_shard(self, batch: Batch, shard: BatchShard) -> Batch:
        targets = [self.dataset.target(index, self.plan.view(index, number)) for index, number in shard.global_pairs]
        on_device: list[Target] = [
            {"boxes": target["boxes"].to(self.device), "labels": target["labels"].to(self.device)} for target in targets
        ]
        return replace(batch, shard=shard, global_targets=on_device)

    def indices(self) -> tuple[int, ...]:
        """The images that ``in_order`` gives: the subset is the same for every seed of training."""
        return subset_indices(self.dataset.num_images, self.subset, SUBSET_SEED)

    def in_order(self) -> Iterator[Batch]:
        """Every image of the subset once, in order, in its view 0."""
        return self.of_pairs([[(index, 0) for index in chunk] for chunk in chunks(self.indices(), self.batch_size)])

    def of_pairs(self, pairs_of_batches: Sequence[Pairs]) -> Iterator[Batch]:
        """The batches of chosen (image index, view number) pairs, in the order given."""

        def make(pairs: Pairs) -> Batch:
            samples = [self.dataset.load(index, self.plan.view(index, number)) for index, number in pairs]
            images_BCHW, targets = collate(samples, self.device)
            return Batch(tuple(pairs), images_BCHW, targets)

        if self.device.type == "cpu":
            return map(make, pairs_of_batches)
        return one_ahead(make, pairs_of_batches)

    def _epoch_pairs(self, seed: int, epoch: int) -> Sequence[Pairs]:
        return epoch_batches(
            self.dataset.num_images,
            self.batch_size,
            seed,
            epoch,
            self.plan.num_views,
            subset=self.subset,
            indices=None if self.choose is None else self.choose(seed),
        )


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """``items`` in order, ``size`` at a time."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def num_chunks(num_items: int, size: int) -> int:
    return math.ceil(num_items / size)


def one_ahead(make: Callable[[Any], Any], items: Sequence[Any], depth: int = 2) -> Iterator[Any]:
    """``map(make, items)``, made by a thread that keeps ``depth`` results ready.

    An exception in the thread is raised here. Leaving the loop early ends the thread.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(message: tuple[str, Any]) -> None:
        while not stopped.is_set():
            try:
                ready.put(message, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                if stopped.is_set():
                    return
                put(("item", make(item)))
            put(("end", None))
        except BaseException as error:  # noqa: BLE001 - raised again in the loop's thread
            put(("error", error))

    thread = threading.Thread(target=work, name="autokd-loader", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stopped.set()
        thread.join()
