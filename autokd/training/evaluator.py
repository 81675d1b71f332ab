"""Runs jobs in a worker: build student and distiller, train, measure, and say how it ended."""

from __future__ import annotations

import math
import os
import re
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from autokd.config import Recipe, ResolvedConfig
from autokd.data import Datasets
from autokd.detectors import Detector
from autokd.distill import TeacherEnsemble, build_distiller, build_ensemble
from autokd.errors import DetectorError, DistillError, NonFiniteError, SpecError
from autokd.outcomes import Cause, Job, Outcome, Report, WorkerResources
from autokd.spec import DistillerSpec
from autokd.training.content import save_weights, write_whole
from autokd.training.loader import Loader
from autokd.training.loop import EpochResult, Lesson, train
from autokd.training.measure.average_precision import AveragePrecision, detect_split
from autokd.training.measure.validation import validate
from autokd.training.optim.averaging import WeightAverage
from autokd.training.optim.frozen import parts_of
from autokd.training.parallel.shares import Ranks
from autokd.training.provisions import EVALUATION_BATCH_SIZE, Provisions
from autokd.training.seeds import random_stream, stream_seed
from autokd.training.teacher.cache import SeveralTeachersTaps
from autokd.training.teacher.obtain import Teacher
from autokd.training.teacher.wanted_taps import student_taps, teacher_taps

PROMOTED_FOLDER = "promoted"
"""Of the run directory: a folder for each promoted student, named by its digest."""
STUDENT_ARTIFACT = "student"
"""The whole state of a proxy's student, kept where one may be promoted."""


PRECISION_PARTS: Mapping[str, Callable[[AveragePrecision], float]] = {
    "ap": lambda precision: precision.map_50_95,
    "ap_50": lambda precision: precision.map_50,
    "ap_worst_class": lambda precision: precision.worst_class,
}
"""Parts of a reward that come of one measuring of AP."""


@dataclass(frozen=True)
class TrainingEvaluatorFactory:
    """Makes the evaluator of one worker process. ``datasets`` serve in this process only and do not travel."""

    config: ResolvedConfig
    cache_dir: Path
    run_dir: Path
    datasets: Datasets | None = field(default=None, compare=False)

    def __call__(self, resources: WorkerResources) -> TrainingEvaluator:
        if resources.num_threads > 0:
            torch.set_num_threads(resources.num_threads)
        return TrainingEvaluator(
            Provisions(self.config, self.cache_dir, torch.device(resources.device), self.datasets), self.run_dir
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.config, self.cache_dir, self.run_dir)


class TrainingEvaluator:
    """Evaluates jobs one after the other; data, teacher's taps and warm starts are loaded once and kept."""

    def __init__(self, provisions: Provisions, run_dir: Path) -> None:
        self._provisions = provisions
        self._run_dir = Path(run_dir)
        self._worker = f"{socket.gethostname()}:{os.getpid()}"

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        """Yield a report after each epoch and return the outcome; expected failures are outcomes too."""
        trial = _Trial(job, self._provisions, self._run_dir)
        failure: tuple[Cause, str] | None = None
        try:
            for result in trial.epochs():
                yield trial.report(result)
            trial.finish()
        except NonFiniteError as error:
            failure = ("non_finite", str(error))
        except TimeoutError as error:
            failure = ("timeout", str(error))
        except (SpecError, DistillError, DetectorError) as error:
            failure = ("cannot_build", str(error))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            failure = ("out_of_memory", str(error).splitlines()[0] if str(error) else "out of memory")
        if failure is not None and self._provisions.device.type == "cuda":
            torch.cuda.empty_cache()
        return Outcome(
            job.id,
            "failed" if failure else "finished",
            trial.metrics,
            failure[0] if failure else None,
            failure[1] if failure else "",
            tuple(trial.reports),
            trial.seconds,
            trial.artifacts,
            self._worker,
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: torch says so in several ways."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return any(sign in text for sign in ("out of memory", "can't allocate memory", "not enough memory"))


def make_lesson(
    spec: DistillerSpec,
    student: Detector,
    loader: Loader,
    provisions: Provisions,
    recipe: Recipe,
    seed: int,
    promoted: Teacher | None = None,
) -> Lesson:
    """Build the distiller for the pair; its weights depend on ``seed`` alone, and the student is left as it was.

    Several teachers, a ``promoted`` student among them, have a distiller each, and share the loss as the
    configuration says; where it gives numbers, the promoted one gets their mean.
    Raises DistillError or SpecError if the pair cannot be distilled so.
    """
    taps, wanted = student_taps(spec), teacher_taps(spec)
    sources = [*provisions.teachers, *([promoted] if promoted is not None else [])]
    teachers = tuple(provisions.training_taps(recipe, wanted, teacher).only(wanted) for teacher in sources)
    batch = next(iter(loader.of_pairs([[(0, 0)]])))
    was_training = student.training
    with random_stream(provisions.device, seed, "distiller"):
        with torch.no_grad():
            outputs = student.eval()(batch.images_BCHW, taps=taps)
        student.train(was_training)
        num_classes = len(provisions.datasets.train.classes)
        if len(teachers) == 1:
            distiller = build_distiller(spec, outputs, teachers[0](batch), num_classes, recipe.recalibrate_every)
            return Lesson(distiller.to(provisions.device), teachers[0], taps)
        several, factors = SeveralTeachersTaps(teachers), provisions.config.teacher_factors
        if promoted is not None and not isinstance(factors, str):
            factors = (*factors, math.fsum(factors) / len(factors))
        ensemble = build_ensemble(spec, outputs, several(batch), num_classes, factors, recipe.recalibrate_every)
    return Lesson(ensemble.to(provisions.device), several, taps)


def _file_name(job_id: str) -> str:
    return re.sub(r"[^\w.-]", "_", job_id)


class _Trial:
    """One job on its way: what was reported and measured so far."""

    def __init__(self, job: Job, provisions: Provisions, run_dir: Path) -> None:
        self._job = job
        self._provisions = provisions
        self._folder = run_dir / "jobs" / _file_name(job.id)
        self._promoted_folder = run_dir / PROMOTED_FOLDER / job.promoted if job.promoted else None
        self._began = time.monotonic()
        self._student: Detector | None = None
        self._lesson: Lesson | None = None
        self._average: WeightAverage | None = None
        config = provisions.config
        self._recipe = config.proxy if job.recipe == "proxy" else config.full
        timeout_s = self._recipe.timeout_s
        self._deadline = None if timeout_s is None else self._began + timeout_s
        self.metrics: dict[str, float] = {}
        self.artifacts: dict[str, str] = {}
        self.reports: list[Report] = []

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def epochs(self) -> Iterator[EpochResult]:
        """Train, epoch by epoch."""
        job, provisions, recipe = self._job, self._provisions, self._recipe
        is_proxy = job.recipe == "proxy"
        student = provisions.warm_student(job.seed) if is_proxy else provisions.new_student(job.seed)
        self._student = student
        loader = provisions.training_loader(recipe, provisions.config.proxy.subset if is_proxy else 1.0)
        if not is_proxy:
            loader = replace(loader, ranks=Ranks.current())
        if job.spec is not None:
            promoted = None if self._promoted_folder is None else provisions.promoted(self._promoted_folder)
            self._lesson = make_lesson(job.spec, student, loader, provisions, recipe, job.seed, promoted)
        # The proxy goes on where the warm start ended, but not over the same order of images again.
        seed = stream_seed(job.seed, "proxy") if is_proxy else job.seed
        cheaper: dict[str, Any] = {}
        if is_proxy:
            proxy = provisions.config.proxy
            cheaper = {
                "stop_after": proxy.epochs,
                "schedule_epochs": proxy.of_epochs,
                "max_steps": proxy.steps,
                "frozen": parts_of(student, proxy.frozen),
            }
            if proxy.weight_average is not None:
                self._average = cheaper["average"] = WeightAverage(student, proxy.weight_average)
        return train(student, loader, recipe, seed=seed, lesson=self._lesson, deadline=self._deadline, **cheaper)

    def report(self, result: EpochResult) -> Report:
        """Measure what the recipe asks for after an epoch."""
        metrics = {"train_loss": result.task_loss, "train_seconds": result.seconds}
        if self._job.spec is not None:
            metrics["distill_loss"] = result.distill_loss
        if self._lesson is not None and isinstance(self._lesson.distiller, TeacherEnsemble):
            shares = self._lesson.distiller.shares_T.tolist()
            metrics |= {f"teacher_share_{k}": share for k, share in enumerate(shares, start=1)}
        if self._job.recipe == "proxy":
            proxy = self._provisions.config.proxy
            is_last = result.epoch == min(proxy.epochs, result.num_epochs)
            if is_last or proxy.measure == "every_epoch":
                with self._average.in_place() if self._average is not None else nullcontext():
                    metrics |= self._proxy_metrics()
        self.metrics = metrics
        report = Report(self._job.id, result.epoch, metrics, self.seconds)
        self.reports.append(report)
        return report

    def _proxy_metrics(self) -> dict[str, float]:
        provisions, proxy = self._provisions, self._provisions.config.proxy
        assert self._student is not None
        metrics: dict[str, float] = {}
        datasets = provisions.datasets_of(proxy)
        loader = provisions.validation_loader(proxy.val_subset, datasets)
        wanted = [part for part in proxy.reward if part in PRECISION_PARTS]
        if not {"val_loss", "val_loss_parts", "cka"}.isdisjoint(proxy.reward):
            taps = provisions.all_validation_taps(datasets) if "cka" in proxy.reward else None
            validation = validate(self._student, loader, taps, wants_detections=bool(wanted), deadline=self._deadline)
            metrics |= {"val_loss": validation.val_loss}
            metrics |= {f"val_loss/{part}": loss for part, loss in validation.losses.items()}
            if validation.cka is not None:
                metrics["cka"] = validation.cka
            detections: Sequence[Mapping[str, Any]] = validation.detections
        elif wanted:
            detections = detect_split(
                self._student,
                datasets.val,
                batch_size=EVALUATION_BATCH_SIZE,
                device=provisions.device,
                indices=loader.indices(),
                deadline=self._deadline,
            )
        if wanted:
            precision = provisions.meter(datasets.val).score(detections, loader.indices())
            metrics |= {part: PRECISION_PARTS[part](precision) for part in wanted}
        return metrics

    def finish(self) -> None:
        """After a full training: measure once, write weights and detections; of ranks, the first does."""
        provisions = self._provisions
        student = self._student
        assert student is not None
        if self._job.recipe != "full":
            if self._may_be_promoted():
                self._keep(STUDENT_ARTIFACT, "student_state.pt", lambda path: save_weights(path, student.state_dict()))
            return
        if Ranks.current().rank > 0:
            return
        validation = validate(
            student,
            provisions.validation_loader(),
            provisions.all_validation_taps(),
            wants_detections=True,
            deadline=self._deadline,
        )
        self.metrics["val_loss"] = validation.val_loss
        if validation.cka is not None:
            self.metrics["cka"] = validation.cka
        datasets = provisions.datasets
        precision = provisions.meter(datasets.val).score(validation.detections)
        for split, dataset in (("val", datasets.val), ("test", datasets.test)):
            if dataset is not datasets.val:
                precision = provisions.meter(dataset).measure(
                    student, batch_size=EVALUATION_BATCH_SIZE, device=provisions.device, deadline=self._deadline
                )
            self.metrics[f"{split}_ap"] = precision.map_50_95
            self.metrics[f"{split}_ap_50"] = precision.map_50
            self.metrics |= {f"{split}_ap/{name}": value for name, value in precision.per_class.items()}
            self._keep(f"detections_{split}", f"detections_{split}.json", precision.save_detections)
        self._keep("weights", "student.pt", lambda path: save_weights(path, student.plain_state_dict()))
        if (spec := self._job.spec) is not None:
            self._keep("distiller", "distiller.yaml", lambda path: write_whole(path, spec.to_yaml().encode()))

    def _may_be_promoted(self) -> bool:
        """Whether this is a trial without whose weights a promotion could not take place."""
        job = self._job
        return self._provisions.config.search.promote_after is not None and job.spec is not None and not job.promoted

    def _keep(self, name: str, file_name: str, write: Any) -> None:
        path = self._folder / file_name
        write(path)
        self.artifacts[name] = str(path)
