"""Measure COCO AP of given weights: ``autokd evaluate``."""

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
    """Load weights into the configuration's student or teacher, and measure COCO AP on a split of its data.

    Args:
        config: configuration as ``autokd.config.load_config`` returns it.
        weights: file of weights, such as a run's student.pt.
        split: part of the data set.
        side: detector that the weights belong to.
        cache_dir: folder of cached data.

    Returns:
        "AP" (mean over IoU 0.5 to 0.95), "AP50", "AP small objects" (medium, large; those that occur) and "AP CLASS" of
        each class, each in [0, 1].

    Raises:
        ConfigError: if ``side`` is "teacher" and the configuration has several.
        DetectorError: if the weights are those of another model; the message lists the keys.
    """
    datasets = load_datasets(config.data, cache_dir)
    dataset = getattr(datasets, split)
    section = config.student if side == "student" else _only_teacher(config)
    detector = build_detector(section, datasets.num_classes, dataset.image_size_px, dataset.classes)
    load_weights(detector, weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = PrecisionMeter(dataset).measure(detector.to(device).eval(), batch_size=16, device=device, by_size=True)
    scores = {"AP": precision.map_50_95, "AP50": precision.map_50}
    scores |= {f"AP {size} objects": value for size, value in precision.per_size.items()}
    return scores | {f"AP {name}": value for name, value in precision.per_class.items()}


def _only_teacher(config: RunConfig) -> Detector:
    if len(config.teachers) > 1:
        raise ConfigError(
            f"teacher: {config.name or 'the config'} has {len(config.teachers)} teachers, so it is not clear whose "
            "weights these are. Give a config with the one teacher."
        )
    return config.teachers[0]
