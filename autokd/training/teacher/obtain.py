"""Teachers: loaded from a checkpoint or trained by a recipe, kept in the cache folder, measured once.

The folder ``teachers/<key>`` of the cache holds ``weights.pt`` and ``meta.json`` (of trained teachers), and a folder
with AP and detections for each pair of validation and test sets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from autokd.config import Detector as DetectorConfig
from autokd.config import TeacherRecipe
from autokd.data import Datasets, DetectionDataset
from autokd.detector_outputs import CrossHead
from autokd.detectors import Detector, build_detector, structure_text, taps_of
from autokd.errors import ConfigError
from autokd.files import (
    META_FILE,
    atomic_folder,
    content_digest,
    digest_of,
    move_aside,
    read_meta,
    write_json_atomically,
)
from autokd.jobs import TRAINING_VERSION
from autokd.locks import exclusive_lock
from autokd.metrics import Size
from autokd.training.checkpoint.cached import cached_checkpoints
from autokd.training.checkpoint.checkpoints import Checkpoints
from autokd.training.loader import Loader, dataset_length, training_plan
from autokd.training.loop import Schedule, train
from autokd.training.measure.average_precision import AveragePrecision, PrecisionMeter
from autokd.training.seeds import random_stream
from autokd.training.weights import load_sound_weights, load_weights, save_weights, weights_digest

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "weights.pt"

OnProgress = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with (stage, done, total, metrics) for a live view."""


def no_progress(stage: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class TeacherScore:
    """COCO AP of a teacher, from 0 to 1; None of one that finds no objects.

    Attributes:
        val_ap: AP on the validation images.
        test_ap: AP on the test images; without a test set, that of validation.
        val_per_class: AP by class.
        test_per_class: AP by class.
        val_per_size: AP of small, medium and large objects.
        test_per_size: AP of small, medium and large objects.
        detections_test: path of a file of COCO results.
    """

    val_ap: float | None
    test_ap: float | None
    val_per_class: Mapping[str, float] = field(default_factory=dict)
    test_per_class: Mapping[str, float] = field(default_factory=dict)
    val_per_size: Mapping[Size, float] = field(default_factory=dict)
    test_per_size: Mapping[Size, float] = field(default_factory=dict)
    detections_test: str = ""


@dataclass(frozen=True)
class Teacher:
    """A teacher's weights, and what identifies them. The model is built when it is asked for.

    Attributes:
        config: the detector's section of the configuration.
        num_classes: classes of the data set.
        image_size_px: height and width of the network's input.
        folder: folder of the weights and measurements.
        digest: digest of the weights, or of the checkpoint with all that it is used for.
        train_seconds: time of its training; 0 for a checkpoint.
        is_trained_here: whether the folder has the weights; if not, the checkpoint has.
        classes: names of the data set's classes, by which a checkpoint of other classes is matched; None: its labels
            fit as they are.
        name: name in reports of progress: "teacher", one of several "teacher 2", or "promoted student".
    """

    config: DetectorConfig
    num_classes: int
    image_size_px: tuple[int, int]
    folder: Path
    digest: str
    train_seconds: float
    is_trained_here: bool
    classes: tuple[str, ...] | None = None
    name: str = "teacher"

    def build(self, device: torch.device) -> Detector:
        """Return the model with its weights, in eval mode."""
        return _build(self, device).to(device).eval()

    def build_head(self, device: torch.device) -> CrossHead | None:
        """Return the head, cut in two and frozen, without the rest of the model; None if it has none to cut."""
        if "head" not in taps_of(self.config):
            return None
        return self.build(device).cross_head()


def file_digest(path: Path | None) -> str:
    """Return 16 hexadecimal digits of a file's content; empty for no file.

    Raises:
        ConfigError: if the file cannot be read.
    """
    if path is None:
        return ""
    try:
        return content_digest(path)
    except OSError as error:
        raise ConfigError(f"checkpoint: {path} cannot be read ({error.strerror}). Correct the path.") from None


def obtain_teacher(
    config: DetectorConfig,
    dataset: DetectionDataset,
    cache_dir: Path,
    device: torch.device,
    on_progress: OnProgress = no_progress,
    name: str = "teacher",
    checkpoint_every_s: float | None = None,
) -> Teacher:
    """Find a teacher in the cache folder, or train it, from its weights on if it has any (a second search finds it).

    Args:
        config: the teacher's section of the configuration.
        dataset: the training images.
        cache_dir: folder of the cache.
        device: device of the training.
        on_progress: called after each epoch.
        name: name of the teacher in reports of progress.
        checkpoint_every_s: seconds between two checkpoints of its training; None: none.

    Raises:
        JobPreempted: if the process was asked to end during the training, which goes on at the next call.
        ConfigError: if there is neither a checkpoint nor a recipe, or the checkpoint cannot be read.
    """
    if (teacher := find_teacher(config, dataset, cache_dir, name)) is not None:
        return teacher
    if config.train is None:
        raise ConfigError(
            "teacher: there is neither a checkpoint nor a recipe. Add 'checkpoint: FILE', or 'train: {}' to have "
            "the run train its teacher."
        )
    folder = _trained_folder(config, config.train, dataset, cache_dir)
    with exclusive_lock(folder):
        if _sound_meta(folder) is None:
            if (aside := move_aside(folder)) is not None:
                logger.warning("%s is damaged, and kept as %s; the teacher is trained again", folder, aside.name)
            checkpoints = cached_checkpoints(cache_dir, "teacher", folder.name, checkpoint_every_s)
            with atomic_folder(folder) as temporary:
                _train(config, dataset, temporary, device, on_progress, name, checkpoints)
            checkpoints.delete()
    teacher = find_teacher(config, dataset, cache_dir, name)
    assert teacher is not None, "a folder just written is whole"
    return teacher


def find_teacher(
    config: DetectorConfig, dataset: DetectionDataset, cache_dir: Path, name: str = "teacher"
) -> Teacher | None:
    """Return a teacher whose section gives its weights, or one that an earlier run has trained; None: it has to be
    trained.

    Args:
        config: the teacher's section of the configuration.
        dataset: the training images.
        cache_dir: folder of the cache.
        name: name of the teacher in reports of progress.

    Raises:
        ConfigError: if the checkpoint cannot be read.
    """
    size, classes = dataset.image_size_px, dataset.classes
    if config.train is None:
        if not config.has_weights:
            return None
        key = digest_of(**_common(config, dataset))
        folder = cache_dir / "teachers" / key
        return Teacher(config, len(classes), size, folder, key, 0.0, False, classes, name)
    folder = _trained_folder(config, config.train, dataset, cache_dir)
    if (meta := _sound_meta(folder)) is None:
        return None
    seconds, digest = float(meta["train_seconds"]), str(meta["digest"])
    return Teacher(config, len(classes), size, folder, digest, seconds, True, classes, name)


def untrained_teacher(config: DetectorConfig, dataset: DetectionDataset, folder: Path) -> Teacher:
    """Return a teacher with the weights that its training would start from, in its place: to count and time it.

    Args:
        config: the teacher's section of the configuration, with a recipe.
        dataset: the training images.
        folder: any folder; nothing is read from it.
    """
    classes = dataset.classes
    return Teacher(config, len(classes), dataset.image_size_px, folder, "untrained", 0.0, False, classes)


def _common(config: DetectorConfig, dataset: DetectionDataset) -> dict[str, Any]:
    """Return what a teacher's weights depend on, trained here or not."""
    size = dataset.image_size_px
    common: dict[str, Any] = {"detector": structure_text(config), "classes": dataset.classes, "image_size_px": size}
    if config.checkpoint is not None:
        common["checkpoint"] = file_digest(config.checkpoint)
    return common


def _trained_folder(config: DetectorConfig, train: TeacherRecipe, dataset: DetectionDataset, cache_dir: Path) -> Path:
    recipe = train.model_dump_json()
    key = digest_of(recipe=recipe, data=dataset.fingerprint, version=TRAINING_VERSION, **_common(config, dataset))
    return cache_dir / "teachers" / key


def _sound_meta(folder: Path) -> dict[str, Any] | None:
    """Return the meta data of a trained teacher; None if meta data or weights are missing, cut short or changed."""
    meta, path = read_meta(folder) or {}, folder / WEIGHTS_FILE
    try:
        seconds, digest, about = float(meta["train_seconds"]), str(meta["digest"]), path.stat()
    except (KeyError, TypeError, ValueError, OSError):
        return None
    found = {"train_seconds": seconds, "digest": digest}
    return found if _is_sound(path, digest, about.st_mtime_ns, about.st_size) else None


@lru_cache(maxsize=16)
def _is_sound(path: Path, digest: str, changed_ns: int, size: int) -> bool:
    """Return whether a file holds the weights that were saved; read once while it stays as it is."""
    return load_sound_weights(path, digest) is not None


def _train(
    config: DetectorConfig,
    dataset: DetectionDataset,
    folder: Path,
    device: torch.device,
    on_progress: OnProgress,
    name: str,
    checkpoints: Checkpoints,
) -> None:
    recipe = config.train
    assert recipe is not None
    with random_stream(device, recipe.seed, "weights"):
        classes = dataset.classes
        model = build_detector(config, len(classes), dataset.image_size_px, classes).to(device)
    loader = Loader(dataset, training_plan(dataset, recipe), recipe.batch_size, device)
    seconds = 0.0 if checkpoints.saved is None else float(checkpoints.saved["position"]["seconds"])
    num_epochs = dataset_length(recipe, dataset).epochs
    on_progress(name, 0, num_epochs, {})
    schedule = Schedule(max_steps=recipe.most_steps)
    for result in train(model, loader, recipe, seed=recipe.seed, schedule=schedule, checkpoints=checkpoints):
        seconds = result.seconds
        on_progress(name, result.epoch, num_epochs, {"train_loss": result.task_loss})
    state = model.state_dict()
    save_weights(folder / WEIGHTS_FILE, state)
    write_json_atomically(folder / META_FILE, {"digest": weights_digest(state), "train_seconds": round(seconds, 3)})


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
    """Return a teacher's AP on validation and test images, measured once and kept beside the weights.

    A teacher that finds no objects, a backbone alone, has none.

    Args:
        teacher: the teacher, built only to be measured.
        datasets: the data sets.
        batch_size: images of a forward pass.
        device: device of the measurement.
        on_progress: called before each split and at the end.
    """
    if not teacher.config.finds_objects:
        return TeacherScore(None, None)
    splits = {"val": datasets.val, "test": datasets.test}
    name = "ap-" + digest_of(by_size=True, **{split: dataset.fingerprint for split, dataset in splits.items()})
    folder = teacher.folder / name
    if (kept := read_meta(folder)) is None:
        with exclusive_lock(folder):
            if (kept := read_meta(folder)) is None:
                model = teacher.build(device)
                with atomic_folder(folder) as temporary:
                    kept = _measure(
                        model, splits, temporary, batch_size, device, partial(on_progress, f"{teacher.name} AP")
                    )
                    write_json_atomically(temporary / META_FILE, kept)
    return TeacherScore(
        kept["val"]["ap"],
        kept["test"]["ap"],
        kept["val"]["per_class"],
        kept["test"]["per_class"],
        kept["val"]["per_size"],
        kept["test"]["per_size"],
        str(folder / "detections_test.json"),
    )


def _measure(
    model: Detector,
    splits: Mapping[str, DetectionDataset],
    folder: Path,
    batch_size: int,
    device: torch.device,
    on_progress: Callable[[int, int, Mapping[str, float]], None],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    precision: AveragePrecision | None = None
    for done, (split, dataset) in enumerate(splits.items()):
        on_progress(done, len(splits), {})
        if precision is None or dataset is not splits["val"]:
            precision = PrecisionMeter(dataset).measure(model, batch_size=batch_size, device=device, by_size=True)
        precision.save_detections(folder / f"detections_{split}.json")
        found[split] = {
            "ap": precision.map_50_95,
            "per_class": dict(precision.per_class),
            "per_size": dict(precision.per_size),
        }
    on_progress(len(splits), len(splits), {f"{s}_ap": about["ap"] for s, about in found.items()})
    return found
