"""Time limits of jobs: seconds that the file gives, or a multiple of what the student alone takes here.

The clock starts at the first step. Reading data, filling caches and warm starts do not count: a worker may have to wait
for another that fills the same cache. Of a job that was interrupted, the time of all processes counts, each from its
first step on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from autokd.config import FullRecipe, ProxyRecipe
from autokd.jobs import RecipeName
from autokd.training.assets import TrainingAssets
from autokd.training.cost.speed import measure_steps
from autokd.training.loader import Loader, dataset_length
from autokd.training.seeds import random_stream
from autokd.training.shards import ALONE

LEAST_LIMIT_S = 600.0
"""Least limit that follows a measured step: below it, a busy machine would fail short trainings by chance."""
_MEASURED_STEPS = 4


@dataclass(frozen=True)
class TimeLimit:
    """The time limit of one job.

    Attributes:
        seconds: seconds from the first step on, over all processes that work on the job; None: no limit.
        words: where the limit comes from, for the error.
    """

    seconds: float | None = None
    words: str = ""

    def deadline(self, used_s: float = 0.0) -> float | None:
        """Return the value of ``time.monotonic`` at which a job that begins now is out of time.

        Args:
            used_s: seconds that earlier processes have used up.
        """
        return None if self.seconds is None else time.monotonic() + self.seconds - used_s

    def explained(self, error: Exception) -> Exception:
        """Return the error of a job, with the limit named if it ran out of time."""
        if not isinstance(error, TimeoutError) or self.seconds is None:
            return error
        found = TimeoutError(f"{error} The limit is {self.seconds:g} s from the first step: {self.words}.")
        return found.with_traceback(error.__traceback__)


class TimeLimits:
    """The limits of the jobs of one worker; a step of the student alone is timed once for each recipe."""

    def __init__(self, assets: TrainingAssets) -> None:
        self._assets = assets
        # Seconds of a step by recipe; kept until the process ends.
        self._step_s: dict[RecipeName, float] = {}

    def of(self, name: RecipeName, recipe: ProxyRecipe | FullRecipe, loader: Loader) -> TimeLimit:
        """Return the limit of a job.

        Args:
            name: name of the recipe.
            recipe: the recipe.
            loader: the job's training images.
        """
        if recipe.timeout_s is not None:
            return TimeLimit(recipe.timeout_s, f"{name}.timeout_s")
        if recipe.timeout_factor is None:
            return TimeLimit()
        if name not in self._step_s:
            self._step_s[name] = self._measured(recipe, loader)
        step_s, steps = self._step_s[name], self._num_steps(recipe, loader)
        seconds = max(LEAST_LIMIT_S, recipe.timeout_factor * step_s * steps)
        words = (
            f"{name}.timeout_factor {recipe.timeout_factor:g} times {steps} steps of {step_s:.3g} s without distiller"
        )
        return TimeLimit(seconds, f"{words}, and at least {LEAST_LIMIT_S:g} s")

    def _num_steps(self, recipe: ProxyRecipe | FullRecipe, loader: Loader) -> int:
        """Return the steps of the training and, as steps of as many images, those of its measurements."""
        length = dataset_length(recipe, loader.dataset)
        data = self._assets.data
        if isinstance(recipe, ProxyRecipe):
            times = length.epochs if recipe.measure == "every_epoch" else 1
            measured = times * recipe.val_subset * data.proxy.val.num_images
        else:
            times = 1 if recipe.patience is None else 1 + length.epochs
            measured = times * data.full.val.num_images + data.full.test.num_images
        return length.steps + round(measured / recipe.batch_size)

    def _measured(self, recipe: ProxyRecipe | FullRecipe, loader: Loader) -> float:
        device = self._assets.device
        # In a stream of its own, and on a student of its own: the job's numbers must not depend on this.
        with random_stream(device, 0, "time limit"):
            student = self._assets.students.new(0)
            alone = replace(loader, ranks=ALONE)
            return measure_steps(student, alone, recipe, budget_s=0.0, most_steps=_MEASURED_STEPS).later_s
