"""A recorded table of 432 distillation losses as a conditional benchmark: each lookup stands for hours of training."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
from optunahub.benchmarks import BaseProblem

TABLE = Path(__file__).parent / "distillers.json.gz"


class Problem(BaseProblem):
    """Average precision of a small detector trained with a distillation loss, looked up in the recorded table.

    The space is conditional: which choices follow depends on those before. ``__call__`` walks it; all choices are
    categorical.

    Args:
        recipe: "full", val AP of a full training (mean over the recorded seeds); or "proxy", val AP after the last
            epoch of the short training.
    """

    def __init__(self, recipe: Literal["full", "proxy"] = "full") -> None:
        content = json.loads(gzip.decompress(TABLE.read_bytes()))
        self._options: dict[str, list[Any]] = content["options"]
        self._value_of = {self._key(row["decisions"]): row[recipe] for row in content["rows"]}
        self._name_after: dict[tuple[Any, ...], str] = {}
        for row in content["rows"]:
            decisions = list(row["decisions"].items())
            for index, (name, _) in enumerate(decisions):
                self._name_after[tuple(decisions[:index])] = name
        self.none: float = content["none"][recipe]
        """Value without distillation."""
        self.best: float = max(self._value_of.values())
        """Greatest value of the table."""

    def __len__(self) -> int:
        return len(self._value_of)

    @property
    def search_space(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """Every choice; a trial meets only those on its path."""
        return {name: optuna.distributions.CategoricalDistribution(values) for name, values in self._options.items()}

    @property
    def directions(self) -> list[optuna.study.StudyDirection]:
        """The value is maximized."""
        return [optuna.study.StudyDirection.MAXIMIZE]

    def __call__(self, trial: optuna.Trial) -> float:
        """Walk the space by the trial's suggestions, and return the recorded value of the loss at which it ends."""
        path: tuple[Any, ...] = ()
        while path in self._name_after:
            name = self._name_after[path]
            path = (*path, (name, trial.suggest_categorical(name, self._options[name])))
        return self.evaluate(dict(path))

    def evaluate(self, params: Mapping[str, Any]) -> float:
        """Return the recorded value of a complete path.

        Args:
            params: choice -> option.
        """
        return float(self._value_of[self._key(params)])

    @staticmethod
    def _key(decisions: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
        return frozenset(decisions.items())
