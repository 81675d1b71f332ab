"""Disk space of the teachers' outputs of a run: all that it reads, and what the cache folder holds of it already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from autokd.config import ResolvedConfig
from autokd.data import Datasets
from autokd.detectors import Detector
from autokd.jobs import RECIPES
from autokd.training.assets import TrainingAssets
from autokd.training.assets.teacher_outputs import CacheNeed
from autokd.training.teacher.cache_build import wanted_arrays
from autokd.training.teacher.cache_bytes import ArrayForm, array_forms, cache_bytes, require_room
from autokd.training.teacher.obtain import find_teacher, untrained_teacher

Forms = dict[tuple[int, tuple[int, int], tuple[str, ...]], dict[str, ArrayForm]]
"""(teacher's position, image size, taps) -> form of each file."""


def output_forms(assets: TrainingAssets, *, searches: bool = True) -> Forms:
    """Return the forms of the files of every cache that a run reads; a forward pass of one blank image shows them.

    Args:
        assets: the run's assets, whose teachers are known.
        searches: whether the run trains proxies.
    """
    found: Forms = {}
    for position, teacher in enumerate(assets.teachers.all):
        model: Detector | None = None
        for need in assets.teachers.needs.caches(searches=searches):
            key = (position, need.image_size_px, need.taps)
            if key not in found:
                model = model or teacher.build(assets.device)
                found[key] = _forms(model, need, assets)
    return found


def bytes_per_view(assets: TrainingAssets) -> dict[tuple[int, tuple[int, int], tuple[str, ...]], int]:
    """Return the bytes of one view's outputs in each cache that a search reads.

    Args:
        assets: the run's assets, whose teachers are known.
    """
    return {key: sum(form.bytes_per_view for form in forms.values()) for key, forms in output_forms(assets).items()}


def require_room_for_outputs(
    config: ResolvedConfig, datasets: Datasets, cache_dir: Path, device: torch.device, seeds: Sequence[int]
) -> None:
    """Refuse a run whose teachers' outputs the disk has no room for, before anything is trained or written.

    Args:
        config: the run's configuration.
        datasets: its data sets.
        cache_dir: folder of the cache.
        device: device of the trainings.
        seeds: seeds of the first proxies; empty if the run trains none.

    Raises:
        DataError: if the free space is too small.
    """
    teachers = tuple(
        find_teacher(section, datasets.train, cache_dir) or untrained_teacher(section, datasets.train, cache_dir)
        for section in config.teachers
    )
    assets = TrainingAssets(config, cache_dir, device, datasets, teachers=teachers)
    needs = assets.teachers.needs
    total = 0
    for need, forms in _needed(assets, searches=bool(seeds)):
        copies = needs.num_seeds(need.recipe) if need.is_a_seeds else 1
        total += copies * cache_bytes(forms, need.leading)
    missing = total - stored_bytes(assets, seeds)
    require_room(
        cache_dir,
        missing,
        f"the teachers' outputs that this run reads ({total / 2**30:.1f} GiB in all)",
        "Free some space, move the cache (--cache-dir), lower proxy.images, proxy.subset or image_size_px, or set "
        "full.num_views to endless. `autokd plan` shows what each of them is worth.",
    )


def stored_bytes(assets: TrainingAssets, seeds: Sequence[int]) -> int:
    """Return the bytes of the run's outputs that the cache folder holds already.

    Args:
        assets: the run's assets, whose teachers are known; of those without weights nothing is stored.
        seeds: seeds of the proxies whose outputs are looked for.
    """
    teachers, needs = assets.teachers, assets.teachers.needs
    folders: set[Path] = set()
    for teacher in teachers.all:
        for recipe in RECIPES:
            if needs.validation_part(recipe) is not None:
                folders.add(teachers.validation_folder(recipe, teacher))
            if not needs.is_cached(recipe):
                continue
            own = seeds if recipe == "proxy" else assets.config.full.seeds
            chosen_by_features = recipe == "proxy" and assets.config.proxy.subset_rule == "k_center"
            if needs.holds_all(recipe) or not chosen_by_features:  # features take a pass of the teacher to know
                parts = {id(part): part for part in (assets.shown_part(recipe, seed) for seed in own)}
                folders |= {teachers.training_folder(recipe, (), teacher, part) for part in parts.values()}
    return sum(path.stat().st_size for folder in folders if folder.is_dir() for path in folder.glob("*.npy"))


def _needed(assets: TrainingAssets, *, searches: bool) -> Iterator[tuple[CacheNeed, dict[str, ArrayForm]]]:
    forms = output_forms(assets, searches=searches)
    for position in range(len(assets.teachers.all)):
        for need in assets.teachers.needs.caches(searches=searches):
            key = (position, need.image_size_px, need.taps)
            yield need, forms[key]


@torch.no_grad()
def _forms(model: Detector, need: CacheNeed, assets: TrainingAssets) -> dict[str, ArrayForm]:
    outputs = model.eval()(torch.zeros(1, 3, *need.image_size_px, device=assets.device), taps=need.taps)
    shapes = {name: tuple(tap.shape[1:]) for name, tap in wanted_arrays(outputs, need.taps).items()}
    return array_forms(shapes, assets.config.cache.precision)
