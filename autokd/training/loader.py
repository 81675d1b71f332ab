"""Batches of a data set: which images in which views, loaded and stacked; for a GPU by threads that work ahead.

Legend: B images of a batch, C colors, H x W pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from autokd.config import Recipe
from autokd.data import (
    DetectionDataset,
    HostBatch,
    Target,
    ViewPlan,
    epoch_batches,
    plan_views,
    stack_samples,
    subset_indices,
)
from autokd.data.orientation import grouped, turned
from autokd.detectors import TrainPipeline
from autokd.targets import CheckedTargets
from autokd.training.length import Length, recipe_length
from autokd.training.own_pipeline import load_batch
from autokd.training.prefetch import copied_beside, decoding_threads, made_ahead, made_by_processes
from autokd.training.shards import ALONE, BatchShard, RankGroup

PLAN_SEED = 0
"""Seed of the plan of views. All trainings of a search share one plan, so that teachers' taps are computed once."""

EVALUATION_BATCH_SIZE = 16
"""Images of a batch without gradients: validation, AP, a teacher that fills its cache."""

SUBSET_SEED = 0
"""Seed that chooses the validation images of a proxy: the same ones for all candidates."""

Pairs = Sequence[tuple[int, int]]
"""(image index, view number) of each image of a batch."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Images and targets of one step.

    Attributes:
        pairs: (image index, view number) of each image.
        images_BCHW: float32 in [0, 1].
        targets: boxes and labels of each image.
        shard: which part of the global batch this is; None if one process trains alone.
        global_targets: targets of all images of the global batch, if there is a shard.
        is_turned: whether the images are shown in the turned frame.
    """

    pairs: tuple[tuple[int, int], ...]
    images_BCHW: Tensor
    targets: list[Target]
    shard: BatchShard | None = None
    global_targets: list[Target] = field(default_factory=list)
    is_turned: bool = False

    @property
    def num_images(self) -> int:
        return len(self.pairs)

    def at_size(self, size_px: tuple[int, int]) -> Batch:
        """Return the batch scaled to (height, width) in pixels; itself if it has this size."""
        height, width = self.images_BCHW.shape[2:]
        if size_px == (height, width):
            return self
        scale = self.images_BCHW.new_tensor([size_px[1] / width, size_px[0] / height] * 2)
        images_BCHW = functional.interpolate(self.images_BCHW, size_px, mode="bilinear", antialias=True)
        local, of_all = (_scaled(targets, scale) for targets in (self.targets, self.global_targets))
        return replace(self, images_BCHW=images_BCHW, targets=local, global_targets=of_all)


def _scaled(targets: list[Target], scale_4: Tensor) -> list[Target]:
    """Return the targets with scaled boxes, checked if they were."""
    scaled = [Target(boxes=target["boxes"] * scale_4, labels=target["labels"]) for target in targets]
    return CheckedTargets(scaled, targets.num_classes) if isinstance(targets, CheckedTargets) else scaled


def training_plan(dataset: DetectionDataset, recipe: Recipe) -> ViewPlan:
    """Return the replayable views of the training images under a recipe."""
    mixes = recipe.mosaic_probability > 0 or recipe.mixup_probability > 0
    return plan_views(
        dataset.num_images,
        None if recipe.num_views == "endless" else recipe.num_views,
        PLAN_SEED,
        recipe.flip_probability,
        recipe.scale_range,
        color_jitter=recipe.color_jitter,
        mosaic_probability=recipe.mosaic_probability,
        mixup_probability=recipe.mixup_probability,
        mix_epochs=int(recipe.mix_until * dataset_length(recipe, dataset).epochs) if mixes else None,
        batch_scale_range=recipe.batch_scale_range,
    )


def dataset_length(recipe: Recipe, dataset: DetectionDataset) -> Length:
    """Return the length of a training on a split by a recipe."""
    return recipe_length(recipe, dataset.num_images, dataset.frames.num_turned)


def identity_plan(dataset: DetectionDataset) -> ViewPlan:
    """Return one view of each image, the image as it is: for validation."""
    return plan_views(dataset.num_images, 1, PLAN_SEED, 0.0, (1.0, 1.0))


@dataclass(frozen=True, eq=False)
class Loader:
    """The batches of one split under one plan of views.

    Attributes:
        dataset: the split.
        plan: the views of each image.
        batch_size: images of a global batch.
        device: device of the batches.
        subset: fraction of the images that is used.
        ranks: processes that share each batch of an epoch. ``in_order`` and ``of_pairs`` are not shared.
        choose: returns the indices of the images for a seed; None: ``subset`` of the images at random.
        pipeline: transforms of the student's own framework, in place of the plan's views; None: the views.
        threads: threads that load ahead; 0: none; None: those of the data set, or as the device asks
            (``decoding_threads``).
    """

    dataset: DetectionDataset
    plan: ViewPlan
    batch_size: int
    device: torch.device
    subset: float = 1.0
    ranks: RankGroup = ALONE
    choose: Callable[[int], Sequence[int]] | None = None
    threads: int | None = None
    pipeline: TrainPipeline | None = None

    def steps_per_epoch(self, seed: int) -> int:
        """Return the number of batches of an epoch."""
        return len(self._epoch_pairs(seed, 1))

    def shown(self, seed: int, num_epochs: int, max_steps: int) -> set[tuple[int, int]]:
        """Return the (image index, view number) pairs that a training shows, without loading any.

        Args:
            seed: the training's seed.
            num_epochs: its epochs.
            max_steps: its steps, if they end it earlier.
        """
        pairs: set[tuple[int, int]] = set()
        for epoch in range(1, num_epochs + 1):
            batches = self._epoch_pairs(seed, epoch)[:max_steps]
            max_steps -= len(batches)
            pairs.update(pair for batch in batches for pair in batch)
        return pairs

    def epoch(self, seed: int, epoch: int, max_steps: int | None = None, first: int = 0) -> Iterator[Batch]:
        """Return the shuffled batches of one epoch, or this rank's part of each.

        Args:
            seed: the training's seed. The images, their order and their views depend on (seed, epoch) alone.
            epoch: 1-based number of the epoch.
            max_steps: maximum number of batches, the first ones; None: all.
            first: number of batches that are left out at the beginning, since an earlier process has trained on them.
        """
        # Of an endless plan, the views of this training.
        return replace(self, plan=self.plan.of_training(seed))._epoch(seed, epoch, max_steps, first)

    def _epoch(self, seed: int, epoch: int, max_steps: int | None, first: int) -> Iterator[Batch]:
        batches = self._epoch_pairs(seed, epoch)[:max_steps][first:]
        if self.ranks.is_alone:
            loaded = self.of_pairs(batches)
        else:
            shards = [self.ranks.shard(pairs) for pairs in batches]
            loaded = map(self._with_shard, self.of_pairs([shard.local_pairs for shard in shards]), shards)
        for number, batch in enumerate(loaded, start=first):
            if self.pipeline is not None:  # which gives batches of any size
                yield batch
                continue
            frame = self.dataset.image_size_px
            size_px = self.plan.batch_size_px(turned(frame) if batch.is_turned else frame, epoch, number)
            yield batch.at_size(size_px)

    def _with_shard(self, batch: Batch, shard: BatchShard) -> Batch:
        targets = [self.dataset.target(index, self.plan.view(index, number)) for index, number in shard.global_pairs]
        on_device: list[Target] = [
            {"boxes": target["boxes"].to(self.device), "labels": target["labels"].to(self.device)} for target in targets
        ]
        return replace(batch, shard=shard, global_targets=on_device)

    def indices(self) -> tuple[int, ...]:
        """Return the indices of the images of ``in_order``: a subset that is the same for every seed of training."""
        if self.choose is not None:
            return tuple(self.choose(SUBSET_SEED))
        return subset_indices(self.dataset.num_images, self.subset, SUBSET_SEED)

    def in_order(self) -> Iterator[Batch]:
        """Return every image of the subset once, in order, in its view 0."""
        return self.of_pairs(self.batches([(index, 0) for index in self.indices()]))

    def batches(self, pairs: Pairs) -> Sequence[Pairs]:
        """Return (image index, view number) pairs cut into batches of one frame each, in their order."""
        return grouped(pairs, self.batch_size, self.dataset.frames.turned_N)

    def of_pairs(self, pairs_of_batches: Sequence[Pairs]) -> Iterator[Batch]:
        """Return the batches of given (image index, view number) pairs, in the given order; each of one frame."""
        pipeline, pinned = self.pipeline, self.device.type == "cuda"

        def load(pairs: Pairs) -> HostBatch:
            if pipeline is not None:
                return load_batch(pipeline, self.dataset, pairs, self.plan.seed)
            samples = [self.dataset.load(index, self.plan.view(index, number)) for index, number in pairs]
            return stack_samples(samples, pinned=pinned)

        def copy(host: HostBatch) -> tuple[Tensor, list[Target]]:
            return host.to(self.device)

        turned_N = self.dataset.frames.turned_N
        threads = self.dataset.decode_threads if self.threads is None else self.threads
        if threads is None:
            threads = decoding_threads(self.device)
        if pipeline is None:
            loaded = made_ahead(load, pairs_of_batches, threads)
        else:  # whose transforms draw from the global generators of a process
            loaded = made_by_processes(load, pairs_of_batches, threads, pinned=pinned)
        on_device = copied_beside(copy, loaded, self.device)
        for pairs, (images_BCHW, targets) in zip(pairs_of_batches, on_device, strict=True):
            yield Batch(tuple(pairs), images_BCHW, targets, is_turned=bool(turned_N[pairs[0][0]]))

    def _epoch_pairs(self, seed: int, epoch: int) -> Sequence[Pairs]:
        return epoch_batches(
            self.dataset.num_images,
            self.batch_size,
            seed,
            epoch,
            self.plan.num_views,
            subset=self.subset,
            indices=None if self.choose is None else self.choose(seed),
            turned_N=self.dataset.frames.turned_N,
        )
