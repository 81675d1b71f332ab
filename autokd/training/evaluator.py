"""The evaluator: runs jobs in a worker process, one after the other."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from autokd.config import ResolvedConfig
from autokd.data import Datasets, StoredSplit
from autokd.detectors import Detector
from autokd.distill import TeacherEnsemble
from autokd.errors import AutoKDError
from autokd.files import make_private_folder
from autokd.jobs import Job, JobFailed, JobStopped, Outcome, RecipeName, Report, WorkerResources, inactive_words
from autokd.metrics import GRADIENT_SHARE
from autokd.training.assets import TrainingAssets
from autokd.training.checkpoint.checkpoints import CheckpointFile, Checkpoints
from autokd.training.distillation import Distillation
from autokd.training.jobs.build_distillation import build_distillation
from autokd.training.jobs.contract import JobTraining
from autokd.training.jobs.files import JobFiles
from autokd.training.jobs.full_training import FullTraining
from autokd.training.jobs.job_checkpoints import checkpoints_of
from autokd.training.jobs.progress import JobProgress
from autokd.training.jobs.proxy_training import ProxyTraining
from autokd.training.loader import Loader
from autokd.training.loop import EpochResult
from autokd.training.time_limit import TimeLimit, TimeLimits

logger = logging.getLogger(__name__)

CHECKPOINT_ARTIFACT = "checkpoint"
"""Name of the artifact with the state of a training that was cut off, from which it may go on."""

TRAININGS: Mapping[RecipeName, Callable[[Job, TrainingAssets], JobTraining]] = {
    "proxy": ProxyTraining,
    "full": FullTraining,
}
"""The training that a job asks for, by the name of its recipe."""


@dataclass(frozen=True)
class TrainingEvaluatorFactory:
    """Makes the evaluator of one worker process; a runtime carries it there.

    Attributes:
        config: the run's configuration.
        cache_dir: folder of the cache, shared by the processes of a machine.
        run_dir: the run directory, to which jobs write.
        datasets: the data sets that this process has read. They stay behind when the factory is pickled: a worker reads
            its own.
        stored: what this process has put into the cache of the data sets, by which a worker opens them without reading
            a file of the set.
    """

    config: ResolvedConfig
    cache_dir: Path
    run_dir: Path
    datasets: Datasets | None = field(default=None, compare=False)
    stored: Mapping[str, StoredSplit] | None = field(default=None, compare=False)

    def __call__(self, resources: WorkerResources) -> TrainingEvaluator:
        """Return the evaluator of this process; sets torch's number of threads."""
        if resources.num_threads > 0:
            torch.set_num_threads(resources.num_threads)
        make_private_folder(self.cache_dir)  # a worker on another node has a cache of its own
        device = torch.device(resources.device)
        assets = TrainingAssets(self.config, self.cache_dir, device, self.datasets, stored=self.stored)
        return TrainingEvaluator(assets, self.run_dir)

    def __reduce__(self) -> tuple[Any, ...]:
        stored = self.stored if self.datasets is None else self.datasets.stored
        return type(self), (self.config, self.cache_dir, self.run_dir, None, stored)


class TrainingEvaluator:
    """Runs jobs one after the other. Data, teachers' taps and warm starts are loaded once and kept (``assets``)."""

    def __init__(
        self,
        assets: TrainingAssets,
        run_dir: Path,
        trainings: Mapping[RecipeName, Callable[[Job, TrainingAssets], JobTraining]] = TRAININGS,
    ) -> None:
        """Run nothing yet.

        Args:
            assets: what all jobs of this process share.
            run_dir: the run directory, to which jobs write.
            trainings: the training of each recipe.
        """
        self.assets = assets
        self._trainings = trainings
        self._limits = TimeLimits(assets)
        self._run_dir = Path(run_dir)

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        """Run a job.

        Args:
            job: a distiller (or none), the name of a recipe, and a seed.

        Yields:
            A report after each epoch. Closing the generator stops the job.

        Returns:
            The outcome of a job that ends well.

        Raises:
            JobPreempted: if the process was asked to end; the job's state is saved.
            JobFailed: if anything else goes wrong; its ``__cause__`` is the exception that ended the job.
        """
        began_s = time.monotonic()
        files, metrics = JobFiles(self._run_dir, job), dict[str, float]()
        checkpoints, limit = Checkpoints(), TimeLimit()
        try:
            training = self._trainings[job.recipe](job, self.assets)
            checkpoints = checkpoints_of(job, self.assets, self._run_dir)
            progress = JobProgress(job.id, began_s, training, checkpoints)
            for report in tuple(progress.reports):
                # Of epochs that an earlier process has trained: a trial that is tried again is judged by them too.
                metrics = dict(report.metrics)
                yield report
            student = training.build_student()
            loader = training.build_loader()
            distillation = self._distillation(job, student, loader, files)
            limit = self._limits.of(job.recipe, training.recipe, loader)
            deadline = limit.deadline(progress.begin_steps())  # what was loaded and built before does not count
            with closing(training.train(student, loader, distillation, deadline, checkpoints)) as results:
                for result in results:
                    measured = training.measure_epoch(student, result, deadline)
                    metrics = {**_loss_metrics(result, distillation), **measured}
                    yield progress.report(result.epoch, metrics)
            training.finish(student, files, metrics, deadline)
        except JobStopped:
            checkpoints.delete()
            raise
        except Exception as error:  # noqa: BLE001 - whatever ends a job is in its outcome
            if isinstance(error, (AutoKDError, TimeoutError)):
                # It would end so again. Another error (a full disk, a lost card) may be gone when the job is run again.
                checkpoints.delete()
            self._free_memory(error)
            raise JobFailed(metrics, files.artifacts) from limit.explained(error)
        checkpoints.delete()
        if job.stop_after is not None and isinstance(checkpoints, CheckpointFile):
            files.artifacts[CHECKPOINT_ARTIFACT] = str(checkpoints.path)
        # The last report of the outcome has the final measurements too: recorded tables hold them there.
        *earlier, last = progress.reports
        distiller = None if distillation is None else distillation.distiller
        outcome = Outcome(
            job.id,
            "finished",
            metrics,
            reports=(*earlier, replace(last, metrics=metrics)),
            seconds=progress.seconds,
            artifacts=files.artifacts,
            run_dir=str(self._run_dir),
            inactive_terms=() if distiller is None else distiller.inactive_terms,
            is_inactive=distiller is not None and distiller.is_inactive,
        )
        if outcome.inactive_terms:
            logger.warning("%s: %s", job.id, inactive_words(outcome))
        return outcome

    def _distillation(self, job: Job, student: Detector, loader: Loader, files: JobFiles) -> Distillation | None:
        """Build what the student learns from beside the targets; None for a job without a distiller."""
        if job.spec is None:
            return None
        folder, teachers = files.promoted_folder, self.assets.teachers
        promoted = None if folder is None else teachers.promoted(folder)
        return build_distillation(job.spec, student, loader, self.assets, job.recipe, job.seed, promoted)

    def _free_memory(self, error: Exception) -> None:
        """Give the card's memory back, which other workers may share.

        The frames of the traceback hold the tensors of the step that failed, and ``error`` lives until the outcome is
        made: without clearing them there would be nothing to give back.
        """
        if self.assets.device.type == "cuda":
            traceback.clear_frames(error.__traceback__)
            torch.cuda.empty_cache()


def _loss_metrics(result: EpochResult, distillation: Distillation | None) -> dict[str, float]:
    """Return the losses of an epoch by the names that reports give them."""
    metrics = {"train_loss": result.task_loss, "train_seconds": result.seconds}
    if distillation is None:
        return metrics
    metrics["distill_loss"] = result.distill_loss
    shares_of_gradient = distillation.distiller.gradient_shares()
    metrics |= {f"{GRADIENT_SHARE}/{term}": share for term, share in shares_of_gradient.items()}
    if isinstance(distillation.distiller, TeacherEnsemble):
        shares = distillation.distiller.shares_T.tolist()
        metrics |= {f"teacher_share_{k}": share for k, share in enumerate(shares, start=1)}
    return metrics
