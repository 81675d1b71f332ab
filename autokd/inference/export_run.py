"""``autokd export``: a run's student in several formats, beside its teacher's size and latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autokd.config import RunConfig, load_config
from autokd.data import load_datasets
from autokd.detectors import Detector, build_detector
from autokd.errors import AutoKDError, ConfigError, DataError, one_of
from autokd.inference.exporting import FORMATS, SUFFIXES, ExportedModel, export_model
from autokd.inference.frames import find_sources, frames_of
from autokd.inference.latency import median_ms
from autokd.inference.trained import TrainedDetector, load_trained
from autokd.training.teacher.obtain import find_teacher

NUM_IMAGES = 8
"""Images on which an exported file is compared, unless others are given."""


@dataclass(frozen=True)
class TeacherCost:
    """Size and latency of a teacher.

    Args:
        name: its architecture.
        size_bytes: bytes of its weights.
        latency_ms: median time of one image, in milliseconds.
        has_weights: whether it had its weights: random ones take as long but for the suppression of boxes.
    """

    name: str
    size_bytes: int
    latency_ms: float
    has_weights: bool


@dataclass(frozen=True)
class Export:
    """Exported files of one detector.

    Args:
        models: a file a format.
        student_bytes: bytes of the student's weights in memory.
        teachers: the run's teachers; empty if there is no configuration.
        threads: threads of torch and onnxruntime.
        notes: remarks for the reader.
    """

    models: tuple[ExportedModel, ...]
    student_bytes: int
    teachers: tuple[TeacherCost, ...]
    threads: int
    notes: tuple[str, ...]

    def to_data(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "models": [model.to_data() for model in self.models],
            "student_bytes": self.student_bytes,
            "teachers": [vars(teacher) for teacher in self.teachers],
            "threads": self.threads,
            "notes": list(self.notes),
        }


def export_run(
    source: str | Path,
    formats: Sequence[str],
    folder: Path | None = None,
    *,
    config: RunConfig | None = None,
    images: Sequence[str | Path] = (),
    cache_dir: Path,
    repeats: int = 10,
) -> Export:
    """Export a run's student, compare each file with it, and time both beside the teacher.

    Args:
        source: run directory, or a file of weights.
        formats: formats to write.
        folder: where the files go; None: the run directory, or the weights' folder.
        config: configuration of the weights; None: that of the run directory.
        images: images to compare on; empty: the first of the data set's test images.
        cache_dir: folder of trained teachers and cached data.
        repeats: images that each latency is the median of.

    Raises:
        AutoKDError: if the detector cannot be loaded or exported, or there are no images to compare on.
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(one_of(name, list(FORMATS), noun="format"))
    source = Path(source).expanduser()
    trained = load_trained(source, config=config, cache_dir=cache_dir, device=torch.device("cpu"))
    config = config or _config_beside(source)
    examples, notes = _examples(trained, images, config, cache_dir)
    folder = folder or (source if source.is_dir() else source.parent)
    models = tuple(
        export_model(trained, name, folder / f"student{SUFFIXES[name]}", examples, repeats=repeats)
        for name in FORMATS
        if name in formats
    )
    teachers: tuple[TeacherCost, ...] = ()
    try:
        if config is not None:
            teachers = tuple(_teachers(config, trained, examples[0], cache_dir, repeats))
    except (AutoKDError, OSError) as error:
        notes.append(f"The teacher is left out: {error}")
    return Export(models, weights_bytes(trained.detector), teachers, torch.get_num_threads(), tuple(notes))


def _config_beside(source: Path) -> RunConfig | None:
    path = (source if source.is_dir() else source.parent) / "config.yaml"
    if not path.is_file():
        return None
    try:
        return load_config(path)
    except ConfigError:  # the data set has gone; the teacher and the test images with it
        return None


def _examples(
    trained: TrainedDetector, images: Sequence[str | Path], config: RunConfig | None, cache_dir: Path
) -> tuple[list[Tensor], list[str]]:
    if images:
        frames = frames_of(find_sources(images))
        return [frame.as_input(trained.image_size_px).image for frame in frames], []
    if config is None:
        raise DataError(
            "there are no images to compare the exported files on, since the run's data set cannot be read. Give "
            "some by --images."
        )
    test = load_datasets(config.data, cache_dir, check=False).test
    # Exported files take one size; images whose input is turned (``data.orientations``) are left out.
    upright = [index for index in range(test.num_images) if test.frames.of(index) == trained.image_size_px]
    examples = [test.load(index).image for index in upright[:NUM_IMAGES]]
    return examples, [f"Compared on the first {len(examples)} images of test."]


def _teachers(
    config: RunConfig, trained: TrainedDetector, image_CHW: Tensor, cache_dir: Path, repeats: int
) -> list[TeacherCost]:
    train = load_datasets(config.data, cache_dir, check=False).train
    costs = []
    for section in config.teachers:
        teacher = find_teacher(section, train, cache_dir)
        detector = (
            teacher.build(torch.device("cpu"))
            if teacher is not None
            else build_detector(section, len(trained.classes), trained.image_size_px, trained.classes).eval()
        )
        (latency_ms,) = median_ms([lambda one=detector: one.detect(image_CHW[None])], repeats)  # type: ignore[misc]
        costs.append(TeacherCost(detector.architecture, weights_bytes(detector), latency_ms, teacher is not None))
    return costs


def weights_bytes(detector: Detector) -> int:
    """Return the size of a detector's weights in memory, in bytes.

    Args:
        detector: the detector.
    """
    return sum(value.numel() * value.element_size() for value in detector.plain_state_dict().values())
