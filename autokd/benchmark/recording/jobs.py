"""A list of jobs, trained into a scratch folder beside any number of other processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from autokd.benchmark.identity import current_commit
from autokd.benchmark.recording.machine import machine_name
from autokd.benchmark.recording.scratch import Scratch
from autokd.benchmark.recording.trainer import Trainer
from autokd.config import ResolvedConfig
from autokd.jobs import Job, RecipeName
from autokd.training.assets import TrainingAssets
from autokd.training.evaluator import TRAININGS
from autokd.training.jobs.contract import JobTraining

SHOWN_METRICS = ("val_ap", "test_ap", "ap")


class Recorder:
    """Trains jobs of one configuration, one at a time, into a scratch folder; data and teachers are loaded once."""

    def __init__(
        self,
        config: ResolvedConfig,
        folder: Path,
        cache_dir: Path,
        *,
        recipes: Sequence[RecipeName] = ("full",),
        trainings: Mapping[RecipeName, Callable[[Job, TrainingAssets], JobTraining]] = TRAININGS,
        run_dir: Path | None = None,
    ) -> None:
        """Open the scratch folder, or begin it; nothing else is loaded before the first training.

        Args:
            config: data, pair and recipes of the jobs.
            folder: scratch folder that all processes share.
            cache_dir: folder of trained teachers and their cached taps.
            recipes: recipes of the jobs.
            trainings: the training of each recipe; left out: a worker's.
            run_dir: run directory of the search whose promoted student teaches, if a job names one.

        Raises:
            BenchmarkError: if the folder was begun with another space, recipe or version of the training.
        """
        self.scratch = Scratch(folder, config, recipes)
        self._config, self._cache_dir, self._trainings = config, cache_dir, trainings
        self._run_dir = run_dir
        self._about = {"commit": current_commit(), "machine": machine_name("cpu")}

    @cached_property
    def _files(self) -> TemporaryDirectory[str]:
        # Removed together with the recorder.
        return TemporaryDirectory(prefix="autokd-record-")

    @cached_property
    def _trainer(self) -> Trainer:
        run_dir = self._run_dir or Path(self._files.name)
        return Trainer(self._config, self._cache_dir, "cpu", run_dir, self._trainings)

    def record(self, job: Job) -> bool:
        """Train a job and keep its outcome; print a line.

        Returns:
            False if another process holds the job or it has ended; nothing is done then.
        """
        with self.scratch.claim(job) as is_ours:
            if not is_ours:
                return False
            outcome = self._trainer.run(job)
            if self._run_dir is None:
                for path in outcome.artifacts.values():
                    (Path(outcome.run_dir) / path).unlink(missing_ok=True)
            # Nobody keeps the files of this training, so the outcome names none.
            outcome = replace(outcome, artifacts={}, run_dir="")
            self.scratch.save(outcome, self._about)
        shown = {n: round(outcome.metrics[n], 4) for n in SHOWN_METRICS if n in outcome.metrics}
        print(job.id, outcome.status, outcome.cause or "", shown, f"{outcome.seconds:.0f} s", flush=True)
        return True


def record_jobs(
    config: ResolvedConfig,
    jobs: Sequence[Job],
    folder: Path,
    cache_dir: Path,
    *,
    minutes: float = math.inf,
    run_dir: Path | None = None,
) -> None:
    """Train the jobs that no other process holds and that have not ended; print a line for each.

    Args:
        config: data, pair and recipes of the jobs.
        jobs: trainings in the order of work.
        folder: scratch folder that all processes share.
        cache_dir: folder of trained teachers and their cached taps.
        minutes: time after which no further training is begun.
        run_dir: run directory of the search whose promoted student teaches, if a job names one.

    Raises:
        BenchmarkError: if the folder was begun with another space, recipe or version of the training.
    """
    recorder = Recorder(config, folder, cache_dir, recipes=sorted({job.recipe for job in jobs}), run_dir=run_dir)
    finished = recorder.scratch.finished_ids()
    ends = time.monotonic() + 60 * minutes
    for job in jobs:
        if time.monotonic() > ends:
            return
        if job.id not in finished:
            recorder.record(job)
