"""The teachers' outputs that a run reads: of which images, in which views, which taps. Counted before any is computed.

Legend: N images, V views, P views of a part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from autokd.config import FullRecipe, ProxyRecipe, Recipe, ResolvedConfig, TeacherOutputs
from autokd.data import subset_size
from autokd.detector_outputs import PYRAMID_TAP
from autokd.jobs import RecipeName
from autokd.training.length import recipe_length
from autokd.training.teacher.cache_key import stored_taps
from autokd.training.teacher.part import num_shown_views
from autokd.training.teacher.required_taps import teacher_taps_of_run

_FULL_FIRST: tuple[RecipeName, ...] = ("full", "proxy")
"""The recipes in the order in which caches are counted: what both read counts as the full trainings'."""


@dataclass(frozen=True)
class CacheNeed:
    """One cache of one teacher that the trainings of a run read.

    Attributes:
        recipe: name of the recipe whose trainings read it; proxies may read the full trainings' cache too.
        split: "training" or "validation".
        taps: names of the taps, as stored.
        image_size_px: height and width of the network's input.
        leading: axes of images and views: (N, V) of all, (P,) of a part.
        is_a_seeds: whether each seed of the recipe's trainings has a cache of its own, since it shows other images.
    """

    recipe: RecipeName
    split: str
    taps: tuple[str, ...]
    image_size_px: tuple[int, int]
    leading: tuple[int, ...]
    is_a_seeds: bool = False

    @property
    def num_views(self) -> int:
        """Forward passes of the teacher that fill it, in images."""
        return math.prod(self.leading)


class OutputNeeds:
    """Which outputs of its teachers a run reads; a pure function of the configuration and the sizes of the splits."""

    def __init__(self, config: ResolvedConfig, num_train: int, num_val: int, num_turned: int = 0) -> None:
        """Count nothing yet.

        Args:
            config: the run's configuration.
            num_train: training images.
            num_val: validation images.
            num_turned: training images that are shown in the turned frame.
        """
        self._config = config
        self._num_turned = num_turned
        self._num_train = num_train
        self._num_val = num_val

    def place(self, recipe: RecipeName) -> TeacherOutputs:
        """Return where trainings by a recipe get the outputs: "live", "memory" or "disk".

        Beside endless views the teacher runs live. What "auto" means is decided before a run (``cost.places``); until
        then it counts as the disk.
        """
        settings = self._recipe(recipe)
        assert isinstance(settings, (ProxyRecipe, FullRecipe))
        if settings.num_views == "endless":
            return "live"
        return "disk" if settings.teacher_outputs == "auto" else settings.teacher_outputs

    def is_cached(self, recipe: RecipeName) -> bool:
        """Return whether trainings by a recipe read outputs that are cached on disk."""
        return self.place(recipe) == "disk"

    def num_views(self, recipe: RecipeName) -> int:
        """Return V of a recipe with finite views."""
        num_views = self._recipe(recipe).num_views
        assert num_views != "endless", "endless views are not cached"
        return num_views

    def num_shown(self, recipe: RecipeName) -> int:
        """Return how many views one training shows, each counted once."""
        settings = self._recipe(recipe)
        num_images = self._num_train
        if isinstance(settings, ProxyRecipe):
            num_images = subset_size(num_images, settings.subset)
        length = recipe_length(settings, self._num_train, self._num_turned)
        return num_shown_views(num_images, self.num_views(recipe), length.images)

    def num_seeds(self, recipe: RecipeName) -> int:
        """Return how many seeds the recipe's trainings have, each of which draws its own images."""
        search, full = self._config.search, self._config.full
        if search.budget is not None:
            return 0 if recipe == "proxy" else 1 + len(full.seeds)
        if recipe == "proxy":
            return 1 + (len(search.finalist_seeds) if search.finalists > 1 else 0)
        return len(full.seeds) + (search.full_finalists > 1)

    def holds_all(self, recipe: RecipeName) -> bool:
        """Return whether one cache of all views serves all trainings by a recipe.

        It does if parts, one for each seed, would take as much, or if full trainings need all of the same views anyway.
        """
        if recipe == "proxy" and self.shares_full_cache:
            return True
        every = self._num_train * self.num_views(recipe)
        return self.num_shown(recipe) * self.num_seeds(recipe) >= every

    @property
    def shares_full_cache(self) -> bool:
        """Whether proxies read the cache of the full trainings: all views of the same images at the same size."""
        ours, theirs = self._config.proxy, self._config.full
        views = ("num_views", "flip_probability", "scale_range", "color_jitter")
        return (
            self.is_cached("full")
            and self.is_cached("proxy")
            and self._size("proxy") == self._size("full")
            and all(getattr(ours, name) == getattr(theirs, name) for name in views)
            and self.holds_all("full")
        )

    def training_taps(self, recipe: RecipeName) -> tuple[str, ...]:
        """Return the taps that the recipe's training cache holds."""
        only: RecipeName | None = "proxy" if recipe == "proxy" and not self.shares_full_cache else None
        return teacher_taps_of_run(self._config, only)

    def validation_part(self, recipe: RecipeName) -> float | None:
        """Return the fraction of the validation images whose outputs are cached for a recipe; None: none are."""
        if recipe == "full":
            return 1.0 if self.is_cached("full") else None
        if "cka" not in self._config.proxy.reward or not self.is_cached("proxy"):
            return None
        shares = self.is_cached("full") and self._size("proxy") == self._size("full")
        return 1.0 if shares else self._config.proxy.val_subset

    def caches(self, *, searches: bool = True) -> Iterator[CacheNeed]:
        """Yield every cache of each teacher; those that two recipes share are one.

        Args:
            searches: whether the run trains proxies.
        """
        validated: set[tuple[tuple[int, int], tuple[int, ...]]] = set()
        for recipe in _FULL_FIRST:
            if recipe == "proxy" and not searches:
                continue
            of_val, of_train = self._validation(recipe), self._training(recipe)
            if of_val is not None and (of_val.image_size_px, of_val.leading) not in validated:
                validated.add((of_val.image_size_px, of_val.leading))
                yield of_val
            if of_train is not None and not (recipe == "proxy" and self.shares_full_cache):
                yield of_train

    def _validation(self, recipe: RecipeName) -> CacheNeed | None:
        part = self.validation_part(recipe)
        if part is None:
            return None
        count = subset_size(self._num_val, part)
        leading = (self._num_val, 1) if part >= 1 else (count,)
        return CacheNeed(recipe, "validation", (PYRAMID_TAP,), self._size(recipe), leading)

    def _training(self, recipe: RecipeName) -> CacheNeed | None:
        if not self.is_cached(recipe):
            return None
        taps, size = stored_taps(self.training_taps(recipe)), self._size(recipe)
        if self.holds_all(recipe):
            return CacheNeed(recipe, "training", taps, size, (self._num_train, self.num_views(recipe)))
        return CacheNeed(recipe, "training", taps, size, (self.num_shown(recipe),), is_a_seeds=True)

    def _recipe(self, recipe: RecipeName) -> Recipe:
        return self._config.proxy if recipe == "proxy" else self._config.full

    def _size(self, recipe: RecipeName) -> tuple[int, int]:
        size = self._config.proxy.image_size_px if recipe == "proxy" else None
        return size or self._config.data.image_size_px
