"""Preparation of a search: teachers trained or loaded and measured, their outputs cached, warm starts trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autokd.config import ResolvedConfig
from autokd.data import Datasets
from autokd.detectors import framework_of
from autokd.errors import DetectorError
from autokd.jobs import RECIPES, RecipeName
from autokd.training.assets import TrainingAssets
from autokd.training.cost.disk import require_room_for_outputs
from autokd.training.loader import EVALUATION_BATCH_SIZE
from autokd.training.optim.frozen import parts_of
from autokd.training.teacher.cache import TeacherCache
from autokd.training.teacher.obtain import OnProgress, TeacherScore, measure_teacher, no_progress


@dataclass(frozen=True)
class Preparation:
    """What preparation found.

    Attributes:
        scores: the AP of each teacher, in the configuration's order.
        outputs_s: seconds in which the teachers' outputs were computed, by this process or an earlier one: what a node
            with an empty cache would need.
    """

    scores: tuple[TeacherScore, ...]
    outputs_s: float = 0.0

    @property
    def score(self) -> TeacherScore:
        """The score of the teacher with the best validation AP; of equals, the first. One without AP comes last."""
        return max(self.scores, key=lambda score: -1.0 if score.val_ap is None else score.val_ap)


def prepare(
    config: ResolvedConfig,
    datasets: Datasets,
    cache_dir: Path,
    *,
    seeds: Sequence[int] = (0,),
    device: str | torch.device = "cpu",
    on_progress: OnProgress = no_progress,
) -> Preparation:
    """Make what trainings need and the cache folder lacks; a second call makes nothing.

    Args:
        config: the run's configuration.
        datasets: the data sets, checked.
        cache_dir: folder of the cache.
        seeds: seeds of the proxy trainings; each has a warm start of its own.
        device: device of the trainings.
        on_progress: called with (stage, done, total, metrics).

    Returns:
        The AP of each teacher.

    Raises:
        ConfigError: if a teacher has neither a checkpoint nor a recipe.
        DataError: if the disk or ``proxy.subset`` is too small.
        NonFiniteError: if a teacher's training diverges.
        DetectorError: if the student has no part that ``proxy.frozen`` names, or a model of MMDetection cannot work on
            images of ``proxy.image_size_px``.
    """
    assets = TrainingAssets(config, cache_dir, torch.device(device), datasets, on_progress)
    require_sound_settings(assets, seeds)
    scores = tuple(
        measure_teacher(teacher, datasets, EVALUATION_BATCH_SIZE, assets.device, on_progress)
        for teacher in assets.teachers.all
    )
    outputs_s = fill_caches(assets, seeds)
    for seed in warm_start_seeds(config, seeds):
        make_warm_start(assets, seed)
    return Preparation(scores, outputs_s)


def require_sound_settings(assets: TrainingAssets, seeds: Sequence[int]) -> None:
    """Refuse what would fail later, before anything is trained or written: a training of hours may come first.

    Args:
        assets: the run's assets, with the places of the teachers' outputs decided.
        seeds: seeds of the proxy trainings.

    Raises:
        DataError: if the disk or ``proxy.subset`` is too small.
        DetectorError: if a detector cannot work on the proxy's images.
    """
    config, datasets = assets.config, assets.data.full
    _try_smaller_images(config, datasets)
    if config.proxy.subset_rule == "stratified":
        for seed in seeds:  # the subset may be too small for the classes
            assets.proxy_loader().steps_per_epoch(seed)
    require_room_for_outputs(config, datasets, assets.data.cache_dir, assets.device, seeds)


def warm_start_seeds(config: ResolvedConfig, seeds: Sequence[int]) -> tuple[int, ...]:
    """Return those of the seeds of proxies that have a warm start: all or none."""
    return tuple(seeds) if config.proxy.warm_start is not None and config.proxy.warm_start.epochs > 0 else ()


def make_warm_start(assets: TrainingAssets, seed: int) -> None:
    """Train the warm start of a seed, if it is missing.

    Raises:
        DetectorError: if the student has no part that ``proxy.frozen`` names: that would fail every trial.
    """
    parts_of(assets.students.warm(seed), assets.config.proxy.frozen)


def fill_caches(assets: TrainingAssets, seeds: Sequence[int]) -> float:
    """Compute the outputs of the teachers that the run's trainings read; return the seconds that they took.

    Of trainings that share no cache, those of ``seeds`` and of the first seed in full are prepared; the others' outputs
    are computed by the worker that needs them first.
    """
    needs = assets.teachers.needs
    recipes: tuple[RecipeName, ...] = RECIPES if seeds else ("full",)
    firsts: dict[RecipeName, Sequence[int]] = {"proxy": seeds, "full": assets.config.full.seeds[:1]}
    caches: set[TeacherCache] = set()
    for teacher in assets.teachers.all:
        for recipe in recipes:
            if needs.validation_part(recipe) is not None:
                caches.add(assets.teachers.validation_cache(recipe, teacher))
        for recipe in recipes:
            if needs.is_cached(recipe):
                for part in dict.fromkeys(assets.shown_part(recipe, seed) for seed in firsts[recipe]):
                    caches.add(assets.teachers.training_cache(recipe, teacher=teacher, part=part))
    return sum(cache.build_s for cache in caches)


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
