"""Preparation as jobs: what comes before a search, done by the workers of a cluster in place of the driver.

The phases are a check of the settings, the teachers, then their outputs and the warm starts. Outputs are one job a
worker: workers that share the cache folder fill each cache together, and workers with a folder of their own fill their
own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from autokd.config import ResolvedConfig, TeacherOutputs
from autokd.data import Datasets, StoredSplit
from autokd.errors import AutoKDError
from autokd.files import make_private_folder
from autokd.jobs import Job, Outcome, RecipeName, Report, WorkerResources
from autokd.metrics import SIZES, Size, Split, ap, class_ap, part_of, size_ap
from autokd.training.assets import TrainingAssets
from autokd.training.cost.places import PlaceCosts, cheapest, place_costs, with_places
from autokd.training.loader import EVALUATION_BATCH_SIZE
from autokd.training.preparation import (
    Preparation,
    fill_caches,
    make_warm_start,
    require_sound_settings,
    warm_start_seeds,
)
from autokd.training.teacher.obtain import TeacherScore, measure_teacher

Kind = Literal["check", "teacher", "outputs", "warm_start"]
Places = Mapping[RecipeName, TeacherOutputs]


@dataclass(frozen=True)
class PreparationTask:
    """What one job prepares; the job's id is its text.

    Attributes:
        kind: what it is.
        number: position of the teacher, number of the worker, or seed of the warm start.
        places: recipe -> place of the outputs, as the check has decided.
    """

    kind: Kind
    number: int = 0
    places: Places = field(default_factory=dict)

    def job(self) -> Job:
        """Return the job, which the runtime of proxies runs."""
        return Job(f"prepare {json.dumps([self.kind, self.number, dict(self.places)])}", None, "proxy")

    @classmethod
    def of(cls, job: Job) -> PreparationTask:
        """Return the task of a job."""
        return cls(*json.loads(job.id.removeprefix("prepare ")))


def teacher_tasks(config: ResolvedConfig) -> list[PreparationTask]:
    """Return a task for each teacher: to train it, if it has no weights, and to measure it."""
    return [PreparationTask("teacher", position) for position in range(len(config.teachers))]


def last_tasks(config: ResolvedConfig, seeds: Sequence[int], places: Places, workers: int) -> list[PreparationTask]:
    """Return the tasks that need the teachers, or come beside: their outputs, and the warm starts.

    Args:
        config: the run's configuration.
        seeds: seeds of the proxy trainings.
        places: places of the outputs.
        workers: number of workers.
    """
    starts = [PreparationTask("warm_start", seed, places) for seed in warm_start_seeds(config, seeds)]
    return starts + [PreparationTask("outputs", number, places) for number in range(max(1, workers))]


def places_from(metrics: Mapping[str, float]) -> dict[RecipeName, TeacherOutputs]:
    """Return the places that the outcome of a check has found cheapest."""
    costs: dict[Any, PlaceCosts] = {}
    for name, seconds in metrics.items():
        recipe, _, place = name.partition("/")
        costs.setdefault(recipe, {})[place] = seconds  # type: ignore[index]
    return {recipe: cheapest(of_recipe) for recipe, of_recipe in costs.items()}


def preparation_from(teachers: Sequence[Outcome], outputs: Sequence[Outcome]) -> Preparation:
    """Return what preparation found.

    Args:
        teachers: outcomes of ``teacher_tasks``, in their order.
        outputs: outcomes of the tasks of outputs.
    """
    seconds = max((outcome.metrics["outputs_s"] for outcome in outputs), default=0.0)
    return Preparation(tuple(_score_from(outcome) for outcome in teachers), seconds)


@dataclass(frozen=True)
class PreparationFactory:
    """Makes the evaluator of preparation in one worker process; a runtime carries it there.

    Attributes:
        config: the run's configuration.
        cache_dir: folder of the cache.
        seeds: seeds of the proxy trainings.
        datasets: the data sets that this process has read; they stay behind when the factory is pickled.
        stored: where they are in the cache, for workers.
    """

    config: ResolvedConfig
    cache_dir: Path
    seeds: tuple[int, ...]
    datasets: Datasets | None = field(default=None, compare=False)
    stored: Mapping[str, StoredSplit] | None = field(default=None, compare=False)

    def __call__(self, resources: WorkerResources) -> PreparationEvaluator:
        """Return the evaluator of this process; sets torch's number of threads."""
        if resources.num_threads > 0:
            torch.set_num_threads(resources.num_threads)
        make_private_folder(self.cache_dir)
        return PreparationEvaluator(self, torch.device(resources.device))

    def __reduce__(self) -> tuple[Any, ...]:
        stored = self.stored if self.datasets is None else self.datasets.stored
        return type(self), (self.config, self.cache_dir, self.seeds, None, stored)


class PreparationEvaluator:
    """Runs the jobs of preparation; each makes what the cache folder of its machine lacks."""

    def __init__(self, factory: PreparationFactory, device: torch.device) -> None:
        """Make nothing yet.

        Args:
            factory: what all jobs share.
            device: device of this worker.
        """
        self._factory, self._device = factory, device
        self._assets: dict[str, TrainingAssets] = {}

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        """Run a job.

        Args:
            job: a job of a ``PreparationTask``.

        Yields:
            Nothing: a job has no epochs.

        Returns:
            The outcome, with what the driver needs to know as metrics.
        """
        yield from ()
        began_s = time.monotonic()
        try:
            metrics, artifacts = self._make(PreparationTask.of(job))
        except AutoKDError as error:  # its words are for the user, and need no traceback
            return Outcome(job.id, "failed", cause="error", message=str(error))
        return Outcome(job.id, "finished", metrics, seconds=time.monotonic() - began_s, artifacts=artifacts)

    def _make(self, task: PreparationTask) -> tuple[dict[str, float], dict[str, str]]:
        """Do a task; return its metrics and files."""
        assets = self._assets_with(task.places)
        if task.kind == "check":
            return self._check(assets), {}
        if task.kind == "teacher":
            score = measure_teacher(
                assets.teachers.one(task.number), assets.data.full, EVALUATION_BATCH_SIZE, self._device
            )
            return _score_metrics(score), {"detections_test": score.detections_test}
        if task.kind == "outputs":
            return {"outputs_s": fill_caches(assets, self._factory.seeds)}, {}
        make_warm_start(assets, task.number)
        return {}, {}

    def _check(self, assets: TrainingAssets) -> dict[str, float]:
        """Decide the places of outputs, and refuse settings that would fail later."""
        factory = self._factory
        costs = place_costs(
            factory.config, assets.data.full, factory.cache_dir, self._device, searches=bool(factory.seeds)
        )
        decided = self._assets_with({recipe: cheapest(of_recipe) for recipe, of_recipe in costs.items()})
        require_sound_settings(decided, factory.seeds)
        return {f"{recipe}/{place}": s for recipe, of_recipe in costs.items() for place, s in of_recipe.items()}

    def _assets_with(self, places: Places) -> TrainingAssets:
        """Return the assets of given places; data sets are read once."""
        key, factory = json.dumps(dict(places), sort_keys=True), self._factory
        if key not in self._assets:
            others = next(iter(self._assets.values()), None)
            datasets = factory.datasets if others is None else others.data.full
            config = with_places(factory.config, places)
            self._assets[key] = TrainingAssets(config, factory.cache_dir, self._device, datasets, stored=factory.stored)
        return self._assets[key]


def _score_metrics(score: TeacherScore) -> dict[str, float]:
    whole = {ap("val"): score.val_ap, ap("test"): score.test_ap}
    found = {name: value for name, value in whole.items() if value is not None}  # a backbone alone detects nothing
    found |= {size_ap("val", size): value for size, value in score.val_per_size.items()}
    found |= {size_ap("test", size): value for size, value in score.test_per_size.items()}
    found |= {class_ap("val", name): value for name, value in score.val_per_class.items()}
    return found | {class_ap("test", name): value for name, value in score.test_per_class.items()}


def _score_from(outcome: Outcome) -> TeacherScore:
    val, test = (_of_split(outcome.metrics, split) for split in get_args(Split))
    detections = outcome.artifacts.get("detections_test", "")
    return TeacherScore(val[0], test[0], val[1], test[1], val[2], test[2], detections)


def _of_split(metrics: Mapping[str, float], split: Split) -> tuple[float | None, dict[str, float], dict[Size, float]]:
    """Return AP on a split (None of a backbone alone), that of each class, and that of each size of objects."""
    per_class = {part: value for name, value in metrics.items() if (part := part_of(name, ap(split))) is not None}
    per_size = {size: metrics[size_ap(split, size)] for size in SIZES if size_ap(split, size) in metrics}
    return metrics.get(ap(split)), per_class, per_size
