"""The configuration of the tests' trainings, for fixtures and for processes of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from autokd.config import ResolvedConfig, RunConfig, complete_recipes
from autokd.training.assets import TrainingAssets


def make_config(**changes: Any) -> ResolvedConfig:
    """8 images of 64 x 64, detectors of width 8, trainings of two epochs; sections may be changed."""
    sections: dict[str, Any] = {
        "data": {"format": "shapes", "image_size_px": (64, 64), "num_train": 8, "num_val": 6, "num_test": 5},
        "teacher": {"backbone": {"width": 8}, "fpn_channels": 16, "train": {"epochs": 2, "batch_size": 4}},
        "student": {"backbone": {"width": 8}, "fpn_channels": 8},
        "space": {"terms": {"min": 1, "max": 2}},
        "proxy": {"epochs": 2, "batch_size": 4, "warm_start": {"epochs": 1}},
        "full": {"epochs": 2, "batch_size": 4},
    }
    for name, change in changes.items():
        sections[name] = {**sections.get(name, {}), **change}
    return complete_recipes(RunConfig.model_validate(sections))


def taps_bytes(assets: TrainingAssets) -> int:
    """Return the bytes of all teachers' cached outputs that a search needs; caches that are the same count once."""
    teachers = assets.teachers
    folders = {
        cache.folder
        for teacher in teachers.all
        for recipe in ("proxy", "full")
        for cache in (teachers.training_cache(recipe, teacher=teacher), teachers.validation_cache(recipe, teacher))
    }
    return sum(np.load(path, mmap_mode="r").nbytes for folder in folders for path in folder.glob("*.npy"))
