"""Places of the teachers' outputs in a forecast: those that a run would choose on this machine, and why."""

from __future__ import annotations

from math import inf
from pathlib import Path

import torch

from autokd.config import ResolvedConfig
from autokd.data import Datasets
from autokd.study.bill import time_words
from autokd.training.cost.places import cheapest, place_costs, with_places


def with_cheapest_places(
    config: ResolvedConfig, datasets: Datasets, cache_dir: Path, device: torch.device
) -> tuple[ResolvedConfig, tuple[str, ...]]:
    """Return the configuration with the places of outputs that a run would choose here, and sentences on them.

    Args:
        config: the run's configuration.
        datasets: its data sets.
        cache_dir: folder of the cache.
        device: device of the trainings.
    """
    costs = place_costs(config, datasets, cache_dir, device)
    notes = []
    for recipe, of_recipe in costs.items():
        if of_recipe["disk"] != 0.0:  # not the disk without a question
            words = (f"{place} {time_words(s) if s < inf else 'does not fit'}" for place, s in of_recipe.items())
            place = cheapest(of_recipe)
            notes.append(f"Teachers' outputs of {recipe}: {place}, by time of one worker: {', '.join(words)}.")
    return with_places(config, {recipe: cheapest(of_recipe) for recipe, of_recipe in costs.items()}), tuple(notes)
