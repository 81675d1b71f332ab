"""Before a search: the teacher trained or loaded, measured, its taps cached, the warm start trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autokd.config import ResolvedConfig
from autokd.data import Datasets
from autokd.detectors import framework_of
from autokd.errors import DetectorError
from autokd.training.optim.frozen import parts_of
from autokd.training.provisions import EVALUATION_BATCH_SIZE, Provisions
from autokd.training.teacher.obtain import OnProgress, Teacher, TeacherScore, measure_teacher, no_progress


@dataclass(frozen=True)
class Preparation:
    """What a search stands on. ``taps_bytes``: size of the teachers' cached taps on disk."""

    teachers: tuple[Teacher, ...]
    scores: tuple[TeacherScore, ...]
    taps_folders: tuple[Path, ...]
    taps_bytes: int
    warm_start_seeds: tuple[int, ...]

    @property
    def teacher(self) -> Teacher:
        """The one with the best val AP; as a rule there is one."""
        return self.teachers[self._best]

    @property
    def score(self) -> TeacherScore:
        """That teacher's."""
        return self.scores[self._best]

    @property
    def _best(self) -> int:
        return max(range(len(self.scores)), key=lambda i: self.scores[i].val_ap)


def prepare(
    config: ResolvedConfig,
    datasets: Datasets,
    cache_dir: Path,
    *,
    seeds: Sequence[int] = (0,),
    device: str | torch.device = "cpu",
    on_progress: OnProgress = no_progress,
) -> Preparation:
    """Make whatever the cache lacks; a second call with the same config, data and cache makes nothing.

    ``seeds``: those of the proxy trainings, each of which has a warm start of its own. Raises ConfigError
    without a way to a teacher, DataError if the disk or ``proxy.subset`` is too small, NonFiniteError if the teacher's
    training runs away, DetectorError if a student has no part that ``proxy.frozen`` names, or a model of MMDetection
    cannot work on images of ``proxy.image_size_px``.
    """
    _try_smaller_images(config, datasets)
    provisions = Provisions(config, cache_dir, torch.device(device), datasets, on_progress)
    if config.proxy.subset_rule == "stratified":
        for seed in seeds:  # now, since it may be too small
            provisions.training_loader(config.proxy, config.proxy.subset).steps_per_epoch(seed)
    scores = tuple(
        measure_teacher(
            teacher,
            datasets,
            EVALUATION_BATCH_SIZE,
            provisions.device,
            provisions.progress_of(provisions.name_of(teacher)),
        )
        for teacher in provisions.teachers
    )
    caches = {
        cache.folder: cache
        for teacher in provisions.teachers
        for cache in (
            *(provisions.validation_taps(teacher, seen) for seen in (provisions.proxy_datasets, datasets)),
            provisions.training_taps(config.proxy, teacher=teacher),
            provisions.training_taps(config.full, teacher=teacher),
        )
    }
    warm_start = config.proxy.warm_start
    is_warm = warm_start is not None and warm_start.epochs > 0
    for seed in seeds if is_warm else ():
        parts_of(provisions.warm_student(seed), config.proxy.frozen)
    return Preparation(
        provisions.teachers,
        scores,
        tuple(caches),
        sum(cache.num_bytes for cache in caches.values()),
        tuple(seeds) if is_warm else (),
    )


def _try_smaller_images(config: ResolvedConfig, datasets: Datasets) -> None:
    """Have each framework check that its detectors work on the proxy's images."""
    size, full = config.proxy.image_size_px, datasets.train.image_size_px
    if size is None or size == full:
        return
    for section in (config.student, *config.teachers):
        try:
            framework_of(section).check_image_size(section, datasets.num_classes, size, datasets.classes)
        except DetectorError as error:
            raise DetectorError(f"proxy.image_size_px is {list(size)}: {error}") from error
