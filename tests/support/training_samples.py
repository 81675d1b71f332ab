"""The configuration of the tests' trainings, for fixtures and for processes of their own."""

from __future__ import annotations

from typing import Any

from autokd.config import ResolvedConfig, RunConfig, complete_recipes


def make_config(**changes: Any) -> ResolvedConfig:
    """8 images of 64 x 64, detectors of width 8, trainings of two epochs; sections may be changed."""
    sections: dict[str, Any] = {
        "data": {"format": "shapes", "image_size_px": (64, 64), "num_train": 8, "num_val": 6, "num_test": 5},
        "teacher": {"backbone": {"width": 8}, "fpn_channels": 16, "train": {"epochs": 2, "batch_size": 4}},
        "student": {"backbone": {"width": 8}, "fpn_channels": 8},
        "proxy": {"epochs": 2, "batch_size": 4, "warm_start": {"epochs": 1}},
        "full": {"epochs": 2, "batch_size": 4},
    }
    for name, change in changes.items():
        sections[name] = {**sections[name], **change}
    return complete_recipes(RunConfig.model_validate(sections))
