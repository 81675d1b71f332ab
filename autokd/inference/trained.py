"""A detector with its weights, found by a run directory, a file of weights, or an exported file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from autokd.config import RunConfig, load_config
from autokd.data import load_datasets
from autokd.detectors import Detector, build_detector, load_weights
from autokd.errors import ConfigError, StorageError
from autokd.inference.safetensors_file import card_in_safetensors
from autokd.storage import RunDirectory, StudentCard
from autokd.training.teacher.obtain import find_teacher

Side = Literal["student", "teacher"]
SAFETENSORS = ".safetensors"


@dataclass(frozen=True, eq=False)
class TrainedDetector:
    """A detector with its weights, and what they do not say.

    Args:
        detector: the detector, in evaluation mode.
        card: its section, classes and image size.
        weights: file of the weights; None: the section's own, or those of the cache.
    """

    detector: Detector
    card: StudentCard
    weights: Path | None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; label k is ``classes[k]``."""
        return self.card.classes

    @property
    def image_size_px(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.card.image_size_px


def load_trained(
    source: str | Path,
    *,
    config: RunConfig | None = None,
    side: Side = "student",
    cache_dir: Path,
    device: torch.device | None = None,
) -> TrainedDetector:
    """Build a detector and load its weights.

    Args:
        source: run directory; a file of weights in one, or beside ``config``; or a safetensors file that ``autokd
            export`` wrote.
        config: configuration of the weights; None: that of the run directory.
        side: detector of the configuration that the weights belong to.
        cache_dir: folder of cached data, which is read if the run directory has no student.json.
        device: where the detector goes; None: the GPU if there is one.

    Raises:
        StorageError: if there is no such run or file, or the run has not ended.
        ConfigError: if the weights need a configuration that is not given.
        DetectorError: if the weights do not fit.
    """
    source = Path(source).expanduser()
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if side == "teacher" and source.is_dir():
        return _teacher_of_run(source, config, cache_dir, device)
    weights = _weights_of(source)
    card = _card_of(source, weights, config, side, cache_dir)
    detector = build_detector(card.detector, len(card.classes), card.image_size_px, card.classes)
    load_weights(detector, weights)
    return TrainedDetector(detector.to(device).eval(), card, weights)


def _teacher_of_run(source: Path, config: RunConfig | None, cache_dir: Path, device: torch.device) -> TrainedDetector:
    """Return a run's teacher: with its checkpoint, or as the run has trained it into the cache."""
    config = config or load_config(RunDirectory.existing(source).config_path)
    card = card_of_config(config, "teacher", cache_dir)
    train = load_datasets(config.data, cache_dir, check=False).train
    teacher = find_teacher(card.detector, train, cache_dir)
    if teacher is None:
        raise StorageError(
            f"{source}: the teacher that the run has trained is not in {cache_dir}. Give the run's --cache-dir."
        )
    return TrainedDetector(teacher.build(device), card, None)


def _weights_of(source: Path) -> Path:
    if source.is_dir():
        run = RunDirectory.existing(source)
        if not run.weights_path.is_file():
            raise StorageError(
                f"{run.weights_path}: there is no such file, because the run has not ended. Continue it with --resume."
            )
        return run.weights_path
    if not source.exists():
        raise StorageError(f"{source}: there is no such run directory or file of weights, seen from {Path.cwd()}.")
    return source


def _card_of(source: Path, weights: Path, config: RunConfig | None, side: Side, cache_dir: Path) -> StudentCard:
    if config is not None:
        return card_of_config(config, side, cache_dir)
    if weights.suffix == SAFETENSORS and (found := card_in_safetensors(weights)) is not None:
        return found
    folder = source if source.is_dir() else source.parent
    if side == "student" and (found := StudentCard.read(folder)) is not None:
        return found
    run = RunDirectory(folder)
    if not run.config_path.is_file():
        raise ConfigError(
            f"{source}: weights alone do not say which detector and classes they belong to. Give --config with the "
            "config file of their training, or name a run directory or a file that `autokd export` wrote."
        )
    return card_of_config(load_config(run.config_path), side, cache_dir)


def card_of_config(config: RunConfig, side: Side, cache_dir: Path) -> StudentCard:
    """Return section, classes and image size of a configuration's detector; the classes are read from its data.

    Args:
        config: the configuration.
        side: its student or its teacher.
        cache_dir: folder of cached data.

    Raises:
        ConfigError: if ``side`` is "teacher" and there are several.
        DataError: if the data set cannot be read.
    """
    if side == "teacher" and len(config.teachers) > 1:
        raise ConfigError(
            f"teacher: {config.name or 'the config'} has {len(config.teachers)} teachers. Give a config with one."
        )
    train = load_datasets(config.data, cache_dir, check=False).train
    return StudentCard(
        name=config.name,
        detector=config.student if side == "student" else config.teachers[0],
        classes=train.classes,
        category_ids=train.category_ids,
        image_size_px=train.image_size_px,
        has_two_frames=train.frames.has_two,
    )
