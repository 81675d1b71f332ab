"""Measures what the trainings of a run cost, by running a little of each on this machine.

Everything is written to a temporary folder that is removed afterwards. Where a teacher still has to be trained, one
with random weights takes its place: its steps and outputs cost the same.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from autokd.config import ResolvedConfig
from autokd.data import Datasets, DetectionDataset
from autokd.detectors import Detector, build_detector
from autokd.jobs import RECIPES, RecipeName
from autokd.spec import DistillerSpec
from autokd.training.assets import TrainingAssets
from autokd.training.cost.disk import bytes_per_view, stored_bytes
from autokd.training.cost.measured import MeasuredCosts, RecipeCosts
from autokd.training.cost.memory import peak_memory, total_memory
from autokd.training.cost.speed import LEAST_STEPS, Clock, StepCost, measure_steps
from autokd.training.jobs.build_distillation import build_distillation
from autokd.training.loader import EVALUATION_BATCH_SIZE, Loader, training_plan
from autokd.training.measure.average_precision import MAX_DETECTIONS, PrecisionMeter, coco_results, detect_split
from autokd.training.measure.validation import validate
from autokd.training.seeds import random_stream
from autokd.training.teacher.cache_build import wanted_arrays
from autokd.training.teacher.obtain import find_teacher, untrained_teacher
from autokd.training.teacher.part import Part

_MOST_STEPS = 40
"""Steps of a training that are timed at most: two measurements of relative weights by default."""
_VAL_IMAGES = 32
"""Validation images that are measured at most."""


def measure_costs(
    config: ResolvedConfig,
    datasets: Datasets,
    cache_dir: Path,
    specs: Mapping[str, DistillerSpec],
    *,
    device: torch.device,
    budget_s: float = 30.0,
    clock: Clock = time.monotonic,
) -> MeasuredCosts:
    """Run a few steps of everything that a run does.

    Args:
        config: the run's configuration.
        datasets: its data sets.
        cache_dir: folder of the cache, in which trained teachers are looked for; nothing is written to it.
        specs: distillers to measure, by name.
        device: device of the trainings.
        budget_s: seconds to spend, roughly: each part makes at least a few steps.
        clock: the clock; that of the process where other programs keep the cores busy.

    Raises:
        DistillError: if the pair cannot be trained with one of the distillers.
        DetectorError: if a detector cannot be built.
    """
    began_s = time.monotonic()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with tempfile.TemporaryDirectory(prefix="autokd-plan-") as folder:
        teachers = tuple(
            find_teacher(section, datasets.train, cache_dir) or untrained_teacher(section, datasets.train, Path(folder))
            for section in config.teachers
        )
        assets = _SampleAssets(config, Path(folder), device, datasets, teachers=teachers)
        is_same_size = config.proxy.image_size_px in (None, datasets.train.image_size_px)
        num_parts = 2 * (1 + len(specs)) + 2 + 2 * len(teachers)
        measuring = _Measuring(assets, budget_s / num_parts, clock)
        teacher_steps = {
            position: measuring.teacher_step(position)
            for position, section in enumerate(config.teachers)
            if find_teacher(section, datasets.train, cache_dir) is None
        }
        sizes: list[RecipeName] = ["full"] if is_same_size else list(RECIPES)
        image_s = {
            (position, assets.data.of(recipe).train.image_size_px): measuring.teacher_image(position, recipe)
            for recipe in sizes
            for position in range(len(teachers))
        }
        total_image_s = {
            recipe: sum(
                image_s[position, assets.data.of(recipe).train.image_size_px] for position in range(len(teachers))
            )
            for recipe in RECIPES
        }
        recipes = {recipe: measuring.recipe(recipe, specs, total_image_s[recipe]) for recipe in RECIPES}
        return MeasuredCosts(
            device=device.type,
            device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
            threads=torch.get_num_threads(),
            recipes=recipes,
            teacher_steps=teacher_steps,
            teacher_image_s=image_s,
            measure_image_s=recipes["full"].test_image_s,
            bytes_per_view=bytes_per_view(assets),
            stored_bytes=stored_bytes(TrainingAssets(config, cache_dir, device, datasets, teachers=teachers), (0,)),
            memory_bytes=peak_memory(device),
            total_memory_bytes=total_memory(device),
            seconds=time.monotonic() - began_s,
        )


class _SampleAssets(TrainingAssets):
    """Assets whose caches hold the views of the steps that are timed."""

    def show(self, recipe: RecipeName, pairs: Iterable[tuple[int, int]]) -> None:
        """Set the (image index, view number) pairs that trainings by a recipe show from now on."""
        if self.teachers.needs.place(recipe) != "live":
            self._parts[recipe, 0] = Part.of(pairs, self.teachers.needs.num_views(recipe))

    def shown_part(self, recipe: RecipeName, seed: int) -> Part | None:
        """Return the views that were set; None beside endless views."""
        return self._parts.get((recipe, 0))


class _Measuring:
    """Runs the parts of a measurement, each for its share of the time."""

    def __init__(self, assets: _SampleAssets, share_s: float, clock: Clock) -> None:
        self._assets = assets
        self._share_s = share_s
        self._clock = clock

    def teacher_step(self, position: int) -> StepCost:
        """Return what a step of a teacher's own training costs."""
        data = self._assets.data.full.train
        section = self._assets.config.teachers[position]
        assert section.train is not None, "load_config refuses a teacher without weights or recipe"
        with random_stream(self._assets.device, 0, "plan"):
            model = build_detector(section, len(data.classes), data.image_size_px, data.classes)
        loader = Loader(data, training_plan(data, section.train), section.train.batch_size, self._assets.device)
        return measure_steps(
            model.to(self._assets.device), loader, section.train, budget_s=self._share_s, clock=self._clock
        )

    def teacher_image(self, position: int, recipe: RecipeName) -> float:
        """Return the seconds in which one view's outputs are computed and stored."""
        assets = self._assets
        teacher, needs = assets.teachers.all[position], assets.teachers.needs
        dataset = assets.data.of(recipe).train
        model = teacher.build(assets.device)
        loader = Loader(
            dataset, training_plan(dataset, assets.data.recipe(recipe)), EVALUATION_BATCH_SIZE, assets.device
        )
        num_views = 1 if assets.data.recipe(recipe).num_views == "endless" else needs.num_views(recipe)
        times: list[float] = []
        for start in range(0, 4 * EVALUATION_BATCH_SIZE, EVALUATION_BATCH_SIZE):
            images = [image % dataset.num_images for image in range(start, start + EVALUATION_BATCH_SIZE)]
            pairs = [(image, 0 if num_views == 1 else 1) for image in images]
            began_s = self._clock()
            with torch.no_grad():
                batch = next(iter(loader.of_pairs(loader.batches(pairs))))
                outputs = model(batch.images_BCHW, taps=needs.training_taps(recipe))
            kept = [tap.half().cpu().numpy() for tap in wanted_arrays(outputs, needs.training_taps(recipe)).values()]
            with tempfile.TemporaryFile() as file:
                for array in kept:
                    np.save(file, array)
            times.append((self._clock() - began_s) / batch.num_images)
            if len(times) > 1 and sum(times) * EVALUATION_BATCH_SIZE > self._share_s:
                break
        return min(times[1:] or times)

    def recipe(self, recipe: RecipeName, specs: Mapping[str, DistillerSpec], image_s: float) -> RecipeCosts:
        """Return what trainings by a recipe cost, where the teachers need ``image_s`` for one view."""
        assets = self._assets
        settings = assets.data.recipe(recipe)
        steps = max(LEAST_STEPS + 1, min(_MOST_STEPS, int(self._share_s / (image_s * settings.batch_size))))
        loader = self._loader(recipe, steps)
        assets.show(recipe, loader.shown(0, settings.epochs, steps))
        student = assets.students.new(0)
        none = measure_steps(student, loader, settings, budget_s=self._share_s, clock=self._clock)
        by_distiller: dict[str, StepCost] = {}
        starts_s: list[float] = []
        for name, spec in specs.items():
            began_s = self._clock()
            student = assets.students.new(0)
            distillation = build_distillation(spec, student, loader, assets, recipe, 0)
            # The first distiller's time includes the teacher's outputs of the batches: the least is that of a job.
            starts_s.append(self._clock() - began_s)
            by_distiller[name] = measure_steps(
                student, loader, settings, distillation, budget_s=self._share_s, clock=self._clock, most_steps=steps
            )
        distilled = _mean(list(by_distiller.values())) if by_distiller else none
        val_s, test_s = self._evaluation(recipe, student)
        start_s = min(starts_s) if len(starts_s) > 1 else 0.0
        return RecipeCosts(none, distilled, val_s, test_s, start_s, by_distiller)

    def _loader(self, recipe: RecipeName, steps: int) -> Loader:
        """Return a loader of the images of so many steps alone, spread over the set."""
        loader = self._assets.data.training_loader(recipe)
        count = min(loader.dataset.num_images, steps * loader.batch_size)
        gap = loader.dataset.num_images // count
        return replace(loader, choose=lambda seed: tuple(range(0, count * gap, gap)))

    def _evaluation(self, recipe: RecipeName, student: Detector) -> tuple[float, float]:
        """Return the seconds of one validation image as the recipe measures it, and of one test image."""
        assets, proxy = self._assets, self._assets.config.proxy
        val_set = assets.data.of(recipe).val
        count = min(val_set.num_images, _VAL_IMAGES)
        indices = tuple(range(count))
        loader = replace(assets.data.validation_loader(recipe), choose=lambda seed: indices)
        has_ap = recipe == "full" or not {"ap", "ap_50", "ap_worst_class"}.isdisjoint(proxy.reward)
        has_losses = recipe == "full" or not {"val_loss", "val_loss_parts", "cka"}.isdisjoint(proxy.reward)
        taps = None
        if recipe == "full" or "cka" in proxy.reward:
            part = Part.of(((index, 0) for index in indices), 1)
            taps = assets.teachers.validation_taps(recipe, part)
        times = []
        for _ in range(2):
            began_s = self._clock()
            if has_losses:
                validate(student, loader, taps, wants_detections=has_ap)
            elif has_ap:
                detect_split(student, val_set, batch_size=EVALUATION_BATCH_SIZE, device=assets.device, indices=indices)
            times.append((self._clock() - began_s) / count)
        score_s = self._score(val_set, indices) if has_ap else 0.0
        test_s = 0.0
        if recipe == "full":
            began_s = self._clock()
            detect_split(student, val_set, batch_size=EVALUATION_BATCH_SIZE, device=assets.device, indices=indices)
            test_s = (self._clock() - began_s) / count + score_s
        return min(times) + score_s, test_s

    def _score(self, val_set: DetectionDataset, indices: Sequence[int]) -> float:
        """Return the seconds in which COCO's matching takes one image with as many detections as are kept.

        The student that is timed has hardly learned, and finds fewer or other objects than one at the end.
        """
        rng = np.random.default_rng(0)
        height, width = val_set.image_size_px
        detections = []
        for index in indices:
            corners = rng.uniform(0, 0.7, (MAX_DETECTIONS, 2))
            boxes = np.concatenate([corners, corners + rng.uniform(0.05, 0.3, (MAX_DETECTIONS, 2))], axis=1)
            found = {
                "boxes": torch.from_numpy(boxes * [width, height, width, height]).float(),
                "scores": torch.from_numpy(rng.random(MAX_DETECTIONS)).float(),
                "labels": torch.from_numpy(rng.integers(val_set.num_classes, size=MAX_DETECTIONS)),
            }
            detections += coco_results(val_set, index, found)
        meter = PrecisionMeter(val_set)
        meter.score(detections, indices)
        began_s = self._clock()
        meter.score(detections, indices)
        return (self._clock() - began_s) / len(indices)


def _mean(costs: Sequence[StepCost]) -> StepCost:
    first, later = ([getattr(cost, name) for cost in costs] for name in ("first_s", "later_s"))
    return StepCost(statistics.fmean(first), statistics.fmean(later), costs[0].every)
