"""The teacher: from a checkpoint, or trained when the file says so; kept by content, measured once.

A folder ``teachers/<key>`` under the cache holds ``weights.pt`` (trained teachers only), ``meta.json`` and one
file of AP for each pair of validation and test sets that it was measured on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from autokd.config import Detector as DetectorConfig
from autokd.data import Datasets, DetectionDataset
from autokd.detectors import Detector, build_detector, structure_text, taps_of
from autokd.errors import ConfigError
from autokd.outcomes import TRAINING_VERSION
from autokd.outputs import CrossHead
from autokd.training.content import (
    META_FILE,
    digest_of,
    exclusive,
    load_weights,
    read_meta,
    save_weights,
    weights_digest,
    whole_folder,
    write_json,
)
from autokd.training.loader import Loader, training_plan
from autokd.training.loop import train
from autokd.training.measure.average_precision import AveragePrecision, PrecisionMeter
from autokd.training.seeds import random_stream

WEIGHTS_FILE = "weights.pt"

OnProgress = Callable[[str, int, int, Mapping[str, float]], None]
"""(stage, done, total, metrics): for a live view."""


def no_progress(stage: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class TeacherScore:
    """COCO AP of the teacher. Without a test set ``test_ap`` is that of val."""

    val_ap: float
    test_ap: float
    val_per_class: Mapping[str, float] = field(default_factory=dict)
    test_per_class: Mapping[str, float] = field(default_factory=dict)
    detections_test: str = ""
    """A file of COCO results beside the weights."""


@dataclass(frozen=True)
class Teacher:
    """Where a teacher's weights are and what identifies them; the model is built when it is asked for."""

    config: DetectorConfig
    num_classes: int
    image_size_px: tuple[int, int]
    folder: Path
    digest: str
    train_seconds: float
    is_trained_here: bool
    classes: tuple[str, ...] | None = None
    """Names of the data set's classes, by which a checkpoint of other classes is matched; None: its labels fit."""

    def build(self, device: torch.device) -> Detector:
        """The model with its weights, in eval mode."""
        return _build(self, device).to(device).eval()

    def build_head(self, device: torch.device) -> CrossHead | None:
        """Its own head, cut in two and frozen, without the rest of the model; None where it has none to cut."""
        if "head" not in taps_of(self.config):
            return None
        return self.build(device).cross_head()


def detector_text(config: DetectorConfig) -> str:
    """What of a detector's section decides its structure."""
    return structure_text(config)


def file_digest(path: Path | None) -> str:
    """16 hexadecimal digits of a file's content; empty for no file. ConfigError if it cannot be read."""
    if path is None:
        return ""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ConfigError(f"checkpoint: {path} cannot be read ({error.strerror}). Correct the path.") from None
    return digest.hexdigest()[:16]


def obtain_teacher(
    config: DetectorConfig,
    dataset: DetectionDataset,
    cache_dir: Path,
    device: torch.device,
    on_progress: OnProgress = no_progress,
) -> Teacher:
    """Find the teacher, or train it on ``dataset`` (a second search finds it); ConfigError if there is no way."""
    size = dataset.image_size_px
    common: dict[str, Any] = {"detector": detector_text(config), "classes": dataset.classes, "image_size_px": size}
    if config.checkpoint is not None:
        key = digest_of(checkpoint=file_digest(config.checkpoint), **common)
        folder = cache_dir / "teachers" / key
        return Teacher(config, len(dataset.classes), size, folder, key, 0.0, False, dataset.classes)
    if config.train is None:
        raise ConfigError(
            "teacher: there is neither a checkpoint nor a recipe. Add 'checkpoint: FILE', or 'train: {}' to have "
            "the run train its teacher."
        )
    recipe = config.train.model_dump_json()
    key = digest_of(recipe=recipe, data=dataset.fingerprint, version=TRAINING_VERSION, **common)
    folder = cache_dir / "teachers" / key
    meta = _sound_meta(folder)
    if meta is None:
        with exclusive(folder):
            meta = _sound_meta(folder)
            if meta is None:
                with whole_folder(folder) as temporary:
                    _train(config, dataset, temporary, device, on_progress)
                meta = _sound_meta(folder)
    assert meta is not None, "a folder just written is whole"
    seconds = float(meta["train_seconds"])
    return Teacher(config, len(dataset.classes), size, folder, str(meta["digest"]), seconds, True, dataset.classes)


def _sound_meta(folder: Path) -> dict[str, Any] | None:
    meta = read_meta(folder)
    return meta if meta is not None and (folder / WEIGHTS_FILE).exists() else None


def _train(
    config: DetectorConfig,
    dataset: DetectionDataset,
    folder: Path,
    device: torch.device,
    on_progress: OnProgress,
) -> None:
    recipe = config.train
    assert recipe is not None
    with random_stream(device, recipe.seed, "weights"):
        classes = dataset.classes
        model = build_detector(config, len(classes), dataset.image_size_px, classes).to(device)
    loader = Loader(dataset, training_plan(dataset, recipe), recipe.batch_size, device)
    began = time.monotonic()
    on_progress("teacher", 0, recipe.epochs, {})
    for result in train(model, loader, recipe, seed=recipe.seed):
        on_progress("teacher", result.epoch, recipe.epochs, {"train_loss": result.task_loss})
    state = model.state_dict()
    save_weights(folder / WEIGHTS_FILE, state)
    seconds = round(time.monotonic() - began, 3)
    write_json(folder / META_FILE, {"digest": weights_digest(state), "train_seconds": seconds})


def _build(teacher: Teacher, device: torch.device) -> Detector:
    with random_stream(device, 0, "weights"):
        model = build_detector(teacher.config, teacher.num_classes, teacher.image_size_px, teacher.classes)
    if teacher.is_trained_here:
        model.load_state_dict(load_weights(teacher.folder / WEIGHTS_FILE))
    return model


def measure_teacher(
    teacher: Teacher,
    datasets: Datasets,
    batch_size: int,
    device: torch.device,
    on_progress: OnProgress = no_progress,
) -> TeacherScore:
    """AP on validation and test, measured once and kept beside the weights."""
    splits = {"val": datasets.val, "test": datasets.test}
    name = "ap-" + digest_of(**{split: dataset.fingerprint for split, dataset in splits.items()})
    folder = teacher.folder / name
    if (kept := read_meta(folder)) is None:
        with exclusive(folder):
            if (kept := read_meta(folder)) is None:
                model = teacher.build(device)
                with whole_folder(folder) as temporary:
                    kept = _measure(model, splits, temporary, batch_size, device, on_progress)
                    write_json(temporary / META_FILE, kept)
    return TeacherScore(
        kept["val"]["ap"],
        kept["test"]["ap"],
        kept["val"]["per_class"],
        kept["test"]["per_class"],
        str(folder / "detections_test.json"),
    )


def _measure(
    model: Detector,
    splits: Mapping[str, DetectionDataset],
    folder: Path,
    batch_size: int,
    device: torch.device,
    on_progress: OnProgress,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    precision: AveragePrecision | None = None
    for done, (split, dataset) in enumerate(splits.items()):
        on_progress("teacher AP", done, len(splits), {})
        if precision is None or dataset is not splits["val"]:
            precision = PrecisionMeter(dataset).measure(model, batch_size=batch_size, device=device)
        precision.save_detections(folder / f"detections_{split}.json")
        found[split] = {"ap": precision.map_50_95, "per_class": dict(precision.per_class)}
    on_progress("teacher AP", len(splits), len(splits), {f"{s}_ap": about["ap"] for s, about in found.items()})
    return found
