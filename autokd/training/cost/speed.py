"""Times of training steps, taken from the training loop itself while it runs for a moment."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import torch

from autokd.config import Recipe
from autokd.detectors import Detector
from autokd.distill.weighting.measured import FIRST_STEPS
from autokd.training.distillation import Distillation
from autokd.training.loader import Batch, Loader
from autokd.training.loop import train
from autokd.training.shards import RankGroup

Clock = Callable[[], float]
"""Returns seconds; ``time.monotonic``, or the time of a thread where other programs keep the cores busy."""

LEAST_STEPS = 3
"""Steps that are timed at least: the first is dropped, since it allocates memory and chooses kernels."""


@dataclass(frozen=True)
class StepCost:
    """Seconds of a training's steps, loading included.

    Attributes:
        first_s: a step that measures relative weights, as each of the first ``FIRST_STEPS`` does.
        later_s: a step that does not.
        every: steps between two measurements later on; None: there are none.
    """

    first_s: float
    later_s: float
    every: int | None = None

    def seconds(self, steps: int) -> float:
        """Return the seconds of a training of so many steps."""
        first = min(steps, FIRST_STEPS)
        more = 0.0 if self.every is None else (self.first_s - self.later_s) / self.every
        return first * self.first_s + (steps - first) * (self.later_s + max(more, 0.0))


@dataclass
class TimedLoader:
    """A loader that times what happens from one batch to the next, and ends an epoch when its time is up.

    Attributes:
        loader: the loader.
        budget_s: seconds after which no batch is given, once ``LEAST_STEPS`` were timed.
        most_steps: steps after which no batch is given.
        clock: the clock.
        steps_s: seconds of each step, the loading of its batch included.
    """

    loader: Loader
    budget_s: float
    most_steps: int
    clock: Clock = time.monotonic
    steps_s: list[float] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        return self.loader.device

    @property
    def ranks(self) -> RankGroup:
        """Processes that share the training."""
        return self.loader.ranks

    @property
    def is_over(self) -> bool:
        """Whether enough was timed."""
        steps = len(self.steps_s)
        return steps >= self.most_steps or (steps >= LEAST_STEPS and sum(self.steps_s) > self.budget_s)

    def steps_per_epoch(self, seed: int) -> int:
        """Return the number of batches of an epoch."""
        return self.loader.steps_per_epoch(seed)

    def epoch(self, seed: int, epoch: int, max_steps: int | None = None, first: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch until the time is up."""
        batches = self.loader.epoch(seed, epoch, max_steps, first)
        began_s = self.clock()
        for batch in batches:
            yield batch
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            ended_s = self.clock()
            self.steps_s.append(ended_s - began_s)
            began_s = ended_s
            if self.is_over:
                return


def measure_steps(
    student: Detector,
    loader: Loader,
    recipe: Recipe,
    distillation: Distillation | None = None,
    *,
    budget_s: float,
    clock: Clock = time.monotonic,
    most_steps: int = 60,
) -> StepCost:
    """Train for a moment, and return what a step costs.

    Args:
        student: the detector, which is trained and left so.
        loader: training images.
        recipe: recipe of the training.
        distillation: distiller and teacher; None: without.
        budget_s: seconds that may be spent; at least ``LEAST_STEPS`` steps are made.
        clock: the clock.
        most_steps: steps after which no more are made.
    """
    timed = TimedLoader(loader, budget_s, most_steps, clock)
    for _ in train(student, cast(Loader, timed), recipe, seed=0, distillation=distillation):
        if timed.is_over:
            break
    steps_s = timed.steps_s[1:] or timed.steps_s
    first, later = steps_s[: FIRST_STEPS - 1], steps_s[FIRST_STEPS:]
    if distillation is None or recipe.recalibrate_every is None:
        cost = statistics.median(steps_s)
        return StepCost(cost, cost)
    # Too slow to get beyond the first steps: they are dearer than the others, so the forecast is on the safe side.
    first_s = statistics.median(first or steps_s)
    return StepCost(first_s, min(first_s, statistics.median(later or steps_s)), recipe.recalibrate_every)
