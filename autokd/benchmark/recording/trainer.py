"""Trainings in this process, as a worker of a search runs them, with everything they need made beforehand."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from autokd.config import ResolvedConfig
from autokd.data import load_datasets
from autokd.jobs import Evaluator, Job, Outcome, RecipeName, WorkerResources
from autokd.runtime import run_guarded
from autokd.training import TrainingEvaluator, TrainingEvaluatorFactory, prepare
from autokd.training.assets import TrainingAssets
from autokd.training.evaluator import TRAININGS
from autokd.training.jobs.contract import JobTraining

TRAIN_SECONDS = "train_seconds"
"""Metric of every report: seconds of training until then, without the measuring."""


class Trainer:
    """Runs jobs one after another on one thread of this process."""

    def __init__(
        self,
        config: ResolvedConfig,
        cache_dir: Path,
        device: str,
        run_dir: Path,
        trainings: Mapping[RecipeName, Callable[[Job, TrainingAssets], JobTraining]] = TRAININGS,
    ) -> None:
        """Load the data.

        Args:
            config: data, pair and recipes of the jobs.
            cache_dir: folder of trained teachers and their cached taps.
            device: "cpu" or "cuda".
            run_dir: folder that a search's worker would write weights into.
            trainings: the training of each recipe; left out: a worker's.
        """
        self._config, self._cache_dir, self._device = config, cache_dir, device
        self._datasets = load_datasets(config.data, cache_dir)
        self._factory = TrainingEvaluatorFactory(config, cache_dir, run_dir, self._datasets)
        self._run_dir, self._trainings = run_dir, trainings
        self._resources = WorkerResources(1, device, 1.0 if device == "cuda" else 0.0)
        self._prepared_seeds: set[int] = set()
        self._evaluator: Evaluator | None = None

    def run(self, job: Job) -> Outcome:
        """Train one job.

        Teacher, cached taps and warm start are made first, so that the first training that needs them is not charged
        for them.

        Returns:
            Outcome of the training; on a CPU its seconds are those that the thread took.
        """
        self._prepare(job)
        assert self._evaluator is not None
        training = run_guarded(self._evaluator, job)
        began = time.process_time()
        while True:
            try:
                next(training)
            except StopIteration as end:
                outcome: Outcome = end.value
                return self._in_thread_seconds(outcome, time.process_time() - began)

    def _in_thread_seconds(self, outcome: Outcome, cpu_seconds: float) -> Outcome:
        """Scale the seconds of an outcome from the wall's to the processor's, which other programs disturb least.

        On a GPU the wall's seconds stay: the processor's do not count what the card does.
        """
        if self._device != "cpu" or outcome.seconds <= 0:
            return outcome
        ratio = cpu_seconds / outcome.seconds

        def scaled(metrics: Mapping[str, float]) -> dict[str, float]:
            return {name: value * ratio if name == TRAIN_SECONDS else value for name, value in metrics.items()}

        reports = tuple(replace(r, seconds=r.seconds * ratio, metrics=scaled(r.metrics)) for r in outcome.reports)
        return replace(outcome, seconds=cpu_seconds, reports=reports, metrics=scaled(outcome.metrics))

    def _prepare(self, job: Job) -> None:
        is_first = not self._prepared_seeds
        if is_first:
            made = self._factory(self._resources)
            self._evaluator = TrainingEvaluator(made.assets, self._run_dir, self._trainings)
        if job.seed not in self._prepared_seeds:
            prepare(self._config, self._datasets, self._cache_dir, seeds=(job.seed,), device=self._device)
            self._prepared_seeds.add(job.seed)
        if is_first and self._evaluator is not None:
            # One epoch that is thrown away: it decodes the images and maps the teacher's taps into memory, which would
            # otherwise lengthen the first training that is recorded.
            spec = job.spec or self._config.space.sample(np.random.default_rng(0))
            opening = run_guarded(self._evaluator, Job("opening", spec, "proxy", job.seed))
            next(opening, None)
            opening.close()
