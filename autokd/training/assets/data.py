"""Data sets of a run, and loaders over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import torch

from autokd.config import Recipe, ResolvedConfig
from autokd.data import (
    Datasets,
    DetectionDataset,
    StoredSplit,
    load_datasets,
    stratified_indices,
)
from autokd.data.pixel_readers import choose_reader, nvjpeg
from autokd.detectors import TrainPipeline, framework_of
from autokd.jobs import RecipeName
from autokd.training.loader import EVALUATION_BATCH_SIZE, Loader, dataset_length, identity_plan, training_plan
from autokd.training.measure.average_precision import PrecisionMeter


class DataAssets:
    """The data sets of a run, each read once and kept.

    Proxies may see smaller images (``proxy.image_size_px``), so most methods ask for the name of the recipe.
    """

    def __init__(
        self,
        config: ResolvedConfig,
        cache_dir: Path,
        device: torch.device,
        datasets: Datasets | None = None,
        stored: Mapping[str, StoredSplit] | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            config: the run's configuration.
            cache_dir: folder of the cache.
            device: device of the loaders' batches.
            datasets: the data sets, if this process has read them already.
            stored: where they are in the cache, if another process has read them.
        """
        self.config = config
        self.cache_dir = cache_dir
        self.device = device
        self._given = datasets
        self._stored = stored
        # Parsed annotations by fingerprint of the split. A run has three splits at one or two sizes: kept until the
        # process ends.
        self._meters: dict[str, PrecisionMeter] = {}
        self._parts: dict[tuple[str, float, int], tuple[int, ...]] = {}

    @cached_property
    def full(self) -> Datasets:
        """The splits at the data's own image size."""
        # Unchecked: the driver has checked the files before any worker started.
        datasets = self._given or load_datasets(self.config.data, self.cache_dir, check=False, stored=self._stored)
        runtime = self.config.runtime
        reader = choose_reader(runtime.decode_on, self.device, nvjpeg)
        for split in datasets.splits:
            split.decode_threads = None if runtime.decode_threads == "auto" else runtime.decode_threads
            split.reader = reader
        return datasets

    @cached_property
    def proxy(self) -> Datasets:
        """The same splits at ``proxy.image_size_px``, for proxies and their warm starts."""
        size = self.config.proxy.image_size_px
        return self.full if size is None else self.full.at_size(size)

    def of(self, recipe: RecipeName) -> Datasets:
        """Return the splits that trainings by this recipe see."""
        return self.proxy if recipe == "proxy" else self.full

    def recipe(self, name: RecipeName) -> Recipe:
        """Return the configuration's recipe of this name."""
        return self.config.proxy if name == "proxy" else self.config.full

    def training_loader(
        self, recipe: RecipeName, subset: float = 1.0, choose: Callable[[int], Sequence[int]] | None = None
    ) -> Loader:
        """Return a loader of training images in the recipe's views.

        Args:
            recipe: name of the recipe.
            subset: fraction of the images; which ones depends on the loader's seed.
            choose: returns the indices of the images for a seed, in place of ``subset`` images at random.
        """
        train_set, settings = self.of(recipe).train, self.recipe(recipe)
        plan = training_plan(train_set, settings)
        pipeline = self.pipeline if recipe == "full" else None
        return Loader(train_set, plan, settings.batch_size, self.device, subset, choose=choose, pipeline=pipeline)

    @cached_property
    def pipeline(self) -> TrainPipeline | None:
        """The train pipeline of the student's config, if full trainings take it."""
        full = self.config.full
        if full.pipeline == "views":
            return None
        num_epochs = dataset_length(full, self.full.train).epochs
        return framework_of(self.config.student).train_pipeline(self.config.student, num_epochs)

    def validation_loader(self, recipe: RecipeName = "full", subset: float = 1.0) -> Loader:
        """Return a loader of validation images as they are.

        Args:
            recipe: name of the recipe.
            subset: fraction of the images, always the same ones; their classes have the shares of boxes that they have
                in all images.
        """
        val_set = self.of(recipe).val
        choose = None if subset >= 1 else partial(self._stratified, val_set, subset)
        return Loader(val_set, identity_plan(val_set), EVALUATION_BATCH_SIZE, self.device, subset, choose=choose)

    def _stratified(self, dataset: DetectionDataset, fraction: float, seed: int) -> tuple[int, ...]:
        key = (dataset.fingerprint, fraction, seed)
        if key not in self._parts:
            # Measured by whatever classes the part shows: one too small for all of them is no error.
            boxes_NK = dataset.boxes_by_class()
            self._parts[key] = stratified_indices(boxes_NK, fraction, seed, shows_every_class=False)
        return self._parts[key]

    def meter(self, dataset: DetectionDataset) -> PrecisionMeter:
        """Return the meter of AP on a split."""
        return self._meters.setdefault(dataset.fingerprint, PrecisionMeter(dataset))

    def size_note(self, dataset: DetectionDataset) -> str:
        """Return what a stage's name adds if its images are not of the data's own size: ", 32 x 48 px"."""
        size = dataset.image_size_px
        return "" if size == self.full.train.image_size_px else f", {size[0]} x {size[1]} px"
