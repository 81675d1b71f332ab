"""COCO AP of given weights: ``autokd evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from autokd.config import Detector, RunConfig
from autokd.data import load_datasets
from autokd.detectors import build_detector, load_weights
from autokd.errors import ConfigError
from autokd.training import PrecisionMeter


def evaluate_weights(
    config: RunConfig,
    weights: Path,
    split: Literal["val", "test"],
    side: Literal["student", "teacher"] = "student",
    *,
    cache_dir: Path,
) -> dict[str, float]:
    """Load ``weights`` into the file's student (or teacher); AP, AP50 and per-class AP on a split of its data.

    Raises DetectorError, listing the keys, if the weights are another model's; ConfigError if the file has several
    teachers.
    """
    datasets = load_datasets(config.data, cache_dir)
    dataset = getattr(datasets, split)
    section = config.student if side == "student" else _only_teacher(config)
    detector = build_detector(section, datasets.num_classes, dataset.image_size_px)
    load_weights(detector, weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = PrecisionMeter(dataset).measure(detector.to(device).eval(), batch_size=16, device=device)
    scores = {"AP": precision.map_50_95, "AP50": precision.map_50}
    return scores | {f"AP {name}": value for name, value in precision.per_class.items()}


def _only_teacher(config: RunConfig) -> Detector:
    if len(config.teachers) > 1:
        raise ConfigError(
            f"teacher: {config.name or 'this file'} has {len(config.teachers)} teachers, and it is not said "
            "whose weights these are. Give a file that names the one."
        )
    return config.teachers[0]
