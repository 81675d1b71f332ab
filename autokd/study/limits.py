"""Hard limits of jobs, after which a worker that hangs is killed; workers keep shorter limits themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from autokd.config import FullRecipe, ProxyRecipe
from autokd.jobs import RECIPES, RecipeName
from autokd.study.context import HARD_LIMIT_FACTOR, HARD_LIMIT_GRACE_S, SEARCH_SEED, RunContext
from autokd.study.finalists import reference_job
from autokd.training.time_limit import LEAST_LIMIT_S


class HardLimits(Mapping[str, float | None]):
    """Recipe's name -> seconds from a job's begin, in which a worker must have answered; None: no limit.

    A worker's own clock starts at the first step, and this one with the job: a worker on another node may fill its
    cache in between, which took ``outputs_s`` here.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        # The reference's time never changes once it is known, and the database is asked for it at every job before.
        self._reference_s: float | None = None

    def __getitem__(self, name: str) -> float | None:
        if name not in RECIPES:
            raise KeyError(name)
        recipe = self._run.config.proxy if name == "proxy" else self._run.config.full
        own_s = self._own_limit_s(name, recipe)
        grace_s = HARD_LIMIT_GRACE_S + self._run.preparation.outputs_s
        return None if own_s is None else HARD_LIMIT_FACTOR * own_s + grace_s

    def __iter__(self) -> Iterator[str]:
        return iter(RECIPES)

    def __len__(self) -> int:
        return len(RECIPES)

    def _own_limit_s(self, name: RecipeName, recipe: ProxyRecipe | FullRecipe) -> float | None:
        """Return the limit that a worker keeps itself, as far as it is known here."""
        if recipe.timeout_s is not None or recipe.timeout_factor is None:
            return recipe.timeout_s
        if name == "full":
            return None  # its steps are measured by the workers alone
        if self._reference_s is None:
            reference = self._run.facts.finished_outcomes().get(reference_job(SEARCH_SEED).id)
            self._reference_s = None if reference is None else reference.seconds
        return None if self._reference_s is None else max(LEAST_LIMIT_S, recipe.timeout_factor * self._reference_s)
