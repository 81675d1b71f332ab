"""Everything that the trainings of one process share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from autokd.config import ProxyRecipe, ResolvedConfig
from autokd.data import Datasets, StoredSplit, k_center_indices, stratified_indices
from autokd.jobs import RecipeName
from autokd.training.assets.data import DataAssets
from autokd.training.assets.students import StudentAssets
from autokd.training.assets.teachers import TeacherAssets
from autokd.training.loader import Loader, dataset_length
from autokd.training.seeds import order_seed
from autokd.training.teacher.obtain import OnProgress, Teacher, no_progress
from autokd.training.teacher.part import Part


class TrainingAssets:
    """Data, teachers and students of a run, each part made when it is first needed.

    ``prepare`` makes every part before a search and fills the cache folder. Each worker opens the same folder and finds
    them there; on a machine that does not share the folder, a worker makes what is missing.

    Attributes:
        config: the run's configuration.
        device: the device of trainings in this process.
        data: data sets and loaders.
        teachers: teachers and their cached outputs.
        students: new and warm-started students.
    """

    def __init__(
        self,
        config: ResolvedConfig,
        cache_dir: Path,
        device: torch.device,
        datasets: Datasets | None = None,
        on_progress: OnProgress = no_progress,
        stored: Mapping[str, StoredSplit] | None = None,
        teachers: tuple[Teacher, ...] | None = None,
    ) -> None:
        """Make nothing yet.

        Args:
            config: the run's configuration.
            cache_dir: folder of the cache, shared by the processes of a machine.
            device: the device of trainings in this process.
            datasets: the data sets, if this process has read them already; None: read when they are first needed.
            on_progress: called while something is trained or a cache is filled.
            stored: where the data sets are in the cache, if another process has read them.
            teachers: the teachers, if they are known already; None: they are found or trained.
        """
        self.config = config
        self.device = device
        self.data = DataAssets(config, Path(cache_dir), device, datasets, stored)
        self.teachers = TeacherAssets(self.data, on_progress, teachers)
        self.students = StudentAssets(self.data, on_progress)
        # Indices of the images of a proxy by seed, for rules that choose: a few numbers, kept until the process ends.
        self._subsets: dict[int, tuple[int, ...]] = {}
        # Views that trainings show, by recipe and seed; likewise.
        self._parts: dict[tuple[RecipeName, int], Part] = {}

    def proxy_loader(self) -> Loader:
        """Return a loader of the training images that proxies see: ``proxy.subset`` of them, by ``subset_rule``."""
        proxy = self.config.proxy
        chooses = proxy.subset_rule != "random" and proxy.subset < 1
        return self.data.training_loader("proxy", proxy.subset, partial(self._subset, proxy) if chooses else None)

    def shown_part(self, recipe: RecipeName, seed: int) -> Part | None:
        """Return the views that a training shows, if its teachers' outputs are kept for these alone.

        Args:
            recipe: name of the recipe.
            seed: the job's seed, on which the images of a subset and their order depend.

        Returns:
            None if one cache holds all views for all seeds, or nothing is kept.
        """
        needs = self.teachers.needs
        if needs.place(recipe) == "live" or (needs.is_cached(recipe) and needs.holds_all(recipe)):
            return None
        if (recipe, seed) not in self._parts:
            loader = self.proxy_loader() if recipe == "proxy" else self.data.training_loader("full")
            length = dataset_length(self.data.recipe(recipe), loader.dataset)
            shown = loader.shown(order_seed(recipe, seed), length.epochs, length.steps)
            self._parts[recipe, seed] = Part.of(shown, needs.num_views(recipe))
        return self._parts[recipe, seed]

    def _subset(self, proxy: ProxyRecipe, seed: int) -> tuple[int, ...]:
        """Return the indices of the images that the rule chooses; of several teachers, the first's features count."""
        if seed not in self._subsets:
            if proxy.subset_rule == "stratified":
                boxes_NK = self.data.proxy.train.boxes_by_class()
                self._subsets[seed] = stratified_indices(boxes_NK, proxy.subset, seed)
            else:
                features_NC = self.teachers.image_features("proxy")
                self._subsets[seed] = k_center_indices(features_NC, proxy.subset, seed)
        return self._subsets[seed]
