"""Where trainings get the teachers' outputs: live, from memory, or from disk, by what each costs and what fits.

Costs are seconds of workers, with U views that a recipe's trainings show in all, D different ones, S seeds and W
workers:

    live    U * forward
    memory  W * S * (D of a seed) * forward + U * bytes * copy
    disk    (D of all seeds) * (load + forward + write) + U * bytes * read

The times are measured on this machine, for a second or so; bytes are exact. Outputs up to ``SMALL_BYTES`` go to the
disk unmeasured: they cost seconds, later runs find them, and small runs must not depend on a measurement.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autokd.config import ProxyRecipe, ResolvedConfig, TeacherOutputs
from autokd.data import Datasets, subset_size
from autokd.detectors import Detector
from autokd.jobs import NO_DISTILLATION, RecipeName
from autokd.training.assets import TrainingAssets
from autokd.training.assets.teacher_outputs import CacheNeed
from autokd.training.cost.disk import output_forms
from autokd.training.length import recipe_length
from autokd.training.loader import EVALUATION_BATCH_SIZE, Loader, training_plan
from autokd.training.optim.optimizer import Precision
from autokd.training.teacher.cache_bytes import USABLE_SHARE, cache_bytes, free_bytes
from autokd.training.teacher.memory import free_memory
from autokd.training.teacher.obtain import find_teacher, untrained_teacher

SMALL_BYTES = 2 * 2**30
"""Outputs of a recipe that go to the disk without a measurement."""
MEMORY_SHARE = 0.5
"""Share of the free memory that kept outputs may take; students, distillers and batches need the rest."""
_SAMPLE_BYTES = 32 * 2**20

PlaceCosts = dict[TeacherOutputs, float]
"""Place -> seconds; infinite: it does not fit."""


@dataclass(frozen=True)
class Speeds:
    """What one view costs on this machine.

    Attributes:
        forward_s: a pass of all teachers over one view beside the student.
        pass_s: loading and passing it to fill a cache.
        write_s: writing a byte to the cache's disk.
        read_s: reading a byte from there into a step.
        copy_s: reading a byte from memory into a step.
    """

    forward_s: float
    pass_s: float
    write_s: float
    read_s: float
    copy_s: float


@dataclass(frozen=True)
class Uses:
    """How often a recipe's trainings read outputs.

    Attributes:
        num_read: views that all of them read.
        num_kept: different views that one seed's trainings read.
        num_seeds: seeds.
        num_stored: different views that the caches of all seeds hold.
        view_bytes: bytes of one stored view, of all teachers.
        stored_bytes: bytes of all caches.
    """

    num_read: int
    num_kept: int
    num_seeds: int
    num_stored: int
    view_bytes: float
    stored_bytes: int


def costs_of(uses: Uses, speeds: Speeds, workers: int, memory_bytes: int, disk_bytes: int) -> PlaceCosts:
    """Return what each place costs.

    Args:
        uses: how often outputs are read.
        speeds: times on this machine.
        workers: workers that train at the same time.
        memory_bytes: memory that one worker may take for outputs.
        disk_bytes: bytes that caches may take.
    """
    memory_s = workers * uses.num_seeds * uses.num_kept * speeds.forward_s
    memory_s += uses.num_read * uses.view_bytes * speeds.copy_s
    disk_s = uses.num_stored * (speeds.pass_s + uses.view_bytes * speeds.write_s)
    disk_s += uses.num_read * uses.view_bytes * speeds.read_s
    return {
        "disk": disk_s if uses.stored_bytes <= disk_bytes else math.inf,
        "memory": memory_s if uses.num_kept * uses.view_bytes <= memory_bytes else math.inf,
        "live": uses.num_read * speeds.forward_s,
    }


def cheapest(costs: PlaceCosts) -> TeacherOutputs:
    """Return the place that costs least; of equals, the first of disk, memory, live."""
    return min(costs, key=lambda place: costs[place])


def place_costs(
    config: ResolvedConfig, datasets: Datasets, cache_dir: Path, device: torch.device, *, searches: bool = True
) -> dict[RecipeName, PlaceCosts]:
    """Return what each place costs each recipe whose ``teacher_outputs`` is "auto".

    Args:
        config: the run's configuration.
        datasets: its data sets.
        cache_dir: folder of the cache.
        device: device of the trainings.
        searches: whether proxies are trained.

    Returns:
        Recipe -> costs; recipes whose place the configuration gives are left out.
    """
    found: dict[RecipeName, PlaceCosts] = {}
    recipes: tuple[RecipeName, ...] = ("full", "proxy") if searches else ("full",)
    for recipe in recipes:  # the full trainings first: proxies may read their caches
        settings = config.full if recipe == "full" else config.proxy
        if settings.teacher_outputs != "auto" or settings.num_views == "endless":
            continue
        found[recipe] = _Choosing(config, datasets, cache_dir, device).costs(recipe)
        config = with_places(config, {recipe: cheapest(found[recipe])})
    return found


def with_places(config: ResolvedConfig, places: Mapping[RecipeName, TeacherOutputs]) -> ResolvedConfig:
    """Return the configuration with places in the recipes that are named.

    Args:
        config: the configuration.
        places: recipe -> place.
    """
    changed: dict[str, Any] = {
        recipe: getattr(config, recipe).model_copy(update={"teacher_outputs": place})
        for recipe, place in places.items()
    }
    return config.model_copy(update=changed)


class _Choosing:
    """Counts and measures what one recipe's outputs cost."""

    def __init__(self, config: ResolvedConfig, datasets: Datasets, cache_dir: Path, device: torch.device) -> None:
        teachers = tuple(
            find_teacher(section, datasets.train, cache_dir) or untrained_teacher(section, datasets.train, cache_dir)
            for section in config.teachers
        )
        self._assets = TrainingAssets(config, cache_dir, device, datasets, teachers=teachers)
        self._config, self._cache_dir, self._device = config, cache_dir, device

    def costs(self, recipe: RecipeName) -> PlaceCosts:
        """Return the costs of each place."""
        uses, config = self.uses(recipe), self._config
        on_disk = int(USABLE_SHARE * free_bytes(self._cache_dir))
        if config.cache.max_bytes is not None:
            on_disk = min(on_disk, config.cache.max_bytes)
        is_shared = recipe == "full" and config.runtime.full_processes > 1  # ranks have a part of the pixels each
        if is_shared or uses.stored_bytes <= min(SMALL_BYTES, on_disk):
            return {"disk": 0.0, "memory": math.inf, "live": math.inf}
        workers = max(1, config.runtime.workers)
        sharing = workers if self._device.type == "cpu" else math.ceil(workers / max(1, torch.cuda.device_count()))
        memory = int(MEMORY_SHARE * free_memory(self._device) / sharing)
        return costs_of(uses, self.speeds(recipe, uses), workers, memory, on_disk)

    def uses(self, recipe: RecipeName) -> Uses:
        """Return how often the recipe's trainings read outputs."""
        config, needs = self._config, self._assets.teachers.needs
        caches = [need for need in needs.caches() if need.recipe == recipe]
        forms = output_forms(self._assets)
        positions = range(len(self._assets.teachers.all))

        def num_bytes(need: CacheNeed) -> int:
            key = need.image_size_px, need.taps
            copies = needs.num_seeds(recipe) if need.is_a_seeds else 1
            return copies * sum(cache_bytes(forms[(k, *key)], need.leading) for k in positions)

        seeds = needs.num_seeds(recipe)
        stored = sum((seeds if need.is_a_seeds else 1) * need.num_views for need in caches)
        stored_bytes = sum(num_bytes(need) for need in caches)
        num_train, num_val = self._assets.data.full.train.num_images, self._assets.data.full.val.num_images
        settings = self._assets.data.recipe(recipe)
        length = recipe_length(settings, num_train)
        validated, times = num_val, 1
        if isinstance(settings, ProxyRecipe):
            validated = subset_size(num_val, settings.val_subset) if "cka" in settings.reward else 0
            times = length.epochs if settings.measure == "every_epoch" else 1
        return Uses(
            num_read=_num_distilled(config, recipe) * (length.images + times * validated),
            num_kept=needs.num_shown(recipe) + validated,
            num_seeds=seeds if any(need.is_a_seeds for need in caches) else 1,
            num_stored=stored,
            view_bytes=stored_bytes / max(1, stored),
            stored_bytes=stored_bytes,
        )

    def speeds(self, recipe: RecipeName, uses: Uses) -> Speeds:
        """Measure."""
        data, settings = self._assets.data.of(recipe).train, self._assets.data.recipe(recipe)
        loader = Loader(data, training_plan(data, settings), EVALUATION_BATCH_SIZE, self._device)
        pairs = [(image % data.num_images, 0) for image in range(EVALUATION_BATCH_SIZE)]
        began_s = time.monotonic()
        pairs = list(loader.batches(pairs)[0])  # images of one frame
        [batch] = loader.of_pairs([pairs])
        load_s = (time.monotonic() - began_s) / len(pairs)
        taps = self._assets.teachers.needs.training_taps(recipe)
        forward_s = 0.0
        for teacher in self._assets.teachers.all:
            model = teacher.build(self._device)
            forward_s += self._forward_s(model, batch.images_BCHW[: settings.batch_size], taps, settings.amp)
        write_s, read_s = disk_speeds(self._cache_dir, is_cold=uses.stored_bytes > free_memory(torch.device("cpu")) / 2)
        return Speeds(forward_s, load_s + forward_s, write_s, read_s, self._copy_s())

    @torch.no_grad()
    def _forward_s(self, model: Detector, images_BCHW: torch.Tensor, taps: tuple[str, ...], amp: bool | str) -> float:
        def once() -> None:
            with Precision(self._device, amp).autocast():
                model.eval()(images_BCHW, taps=taps)

        return self._least_s(once) / len(images_BCHW)

    def _copy_s(self) -> float:
        """Return the seconds in which a byte in half precision becomes part of a step."""
        kept = torch.zeros(64, _SAMPLE_BYTES // 128, dtype=torch.float16, device=self._device)
        rows = torch.arange(0, 64, 2, device=self._device)
        return self._least_s(lambda: kept[rows].float()) / (_SAMPLE_BYTES / 2)

    def _least_s(self, work: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            began_s = time.monotonic()
            work()
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            times.append(time.monotonic() - began_s)
        return min(times)


def disk_speeds(folder: Path, *, is_cold: bool) -> tuple[float, float]:
    """Return the seconds in which a byte is written to a folder's disk, and read from it.

    Args:
        folder: folder of the cache.
        is_cold: whether the system must fetch what is read, since memory does not hold all of it.
    """
    content = os.urandom(_SAMPLE_BYTES)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        began_s = time.monotonic()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        written_s = time.monotonic() - began_s
        if is_cold and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        began_s = time.monotonic()
        torch.frombuffer(bytearray(file.read()), dtype=torch.uint8).view(torch.float16).float()
        read_s = time.monotonic() - began_s
    return written_s / _SAMPLE_BYTES, read_s / _SAMPLE_BYTES


def _num_distilled(config: ResolvedConfig, recipe: RecipeName) -> int:
    """Return the trainings by a recipe that have a distiller."""
    search, full = config.search, config.full
    if recipe == "proxy":
        finalists = min(search.finalists, search.trials)
        return search.trials + (finalists * len(search.finalist_seeds) if search.finalists > 1 else 0)
    entries = 1 + sum(name != NO_DISTILLATION for name in full.baselines)
    return entries * len(full.seeds) + (search.full_finalists if search.full_finalists > 1 else 0)
