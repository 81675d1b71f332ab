"""The proxy: a short training by which a candidate is judged."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from autokd.config import ProxyRecipe
from autokd.detectors import Detector
from autokd.jobs import Job
from autokd.training.assets import TrainingAssets
from autokd.training.checkpoint.checkpoints import Checkpoints
from autokd.training.distillation import Distillation
from autokd.training.jobs.files import JobFiles
from autokd.training.loader import EVALUATION_BATCH_SIZE, Loader
from autokd.training.loop import EpochResult, Schedule, StudentExtras, train
from autokd.training.measure.average_precision import AveragePrecision, detect_split
from autokd.training.measure.validation import validate
from autokd.training.optim.averaging import WeightAverage, averaged
from autokd.training.optim.frozen import parts_of
from autokd.training.seeds import order_seed
from autokd.training.weights import save_weights

STUDENT_ARTIFACT = "student"
"""Name of the artifact with a proxy's whole student, kept if a student may be promoted."""

PRECISION_PARTS: Mapping[str, Callable[[AveragePrecision], float]] = {
    "ap": lambda precision: precision.map_50_95,
    "ap_50": lambda precision: precision.map_50,
    "ap_worst_class": lambda precision: precision.worst_class,
}
"""Parts of a reward that are read from one measurement of AP."""

_VALIDATION_PARTS = ("val_loss", "val_loss_parts", "cka")
"""Parts of a reward that need a forward pass with targets."""


class ProxyTraining:
    """Trains a candidate for a few epochs and measures the parts of the reward.

    It may start warm, see fewer and smaller images, keep parts of the student frozen, stop early, and be measured by an
    average of its weights: the section ``proxy`` of the configuration says which.
    """

    def __init__(self, job: Job, assets: TrainingAssets) -> None:
        self._job = job
        self._assets = assets
        self._average: WeightAverage | None = None

    @property
    def recipe(self) -> ProxyRecipe:
        return self._assets.config.proxy

    def build_student(self) -> Detector:
        """Return the warm-started student of the job's seed."""
        return self._assets.students.warm(self._job.seed)

    def build_loader(self) -> Loader:
        """Return the loader of the part of the images that proxies see."""
        return self._assets.proxy_loader()

    def train(
        self,
        student: Detector,
        loader: Loader,
        distillation: Distillation | None,
        deadline: float | None,
        checkpoints: Checkpoints,
    ) -> Generator[EpochResult, None, None]:
        """Train on from the warm start, for the proxy's epochs or steps."""
        proxy = self.recipe
        if proxy.weight_average is not None:
            self._average = WeightAverage(student, proxy.weight_average)
        return train(
            student,
            loader,
            proxy,
            seed=order_seed("proxy", self._job.seed),
            distillation=distillation,
            schedule=Schedule(num_epochs=proxy.of_epochs, stop_after=proxy.epochs, max_steps=proxy.most_steps),
            extras=StudentExtras(parts_of(student, proxy.frozen), self._average),
            deadline=deadline,
            checkpoints=checkpoints,
        )

    def get_state(self) -> Mapping[str, Any]:
        """Return nothing: the average of the weights belongs to the training's own state."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over nothing."""

    def measure_epoch(self, student: Detector, result: EpochResult, deadline: float | None) -> Mapping[str, float]:
        """Measure the parts of the reward; after the last epoch alone if ``proxy.measure`` is so."""
        proxy = self.recipe
        is_last = result.epoch == min(proxy.epochs, result.num_epochs)
        if not is_last and proxy.measure != "every_epoch":
            return {}
        with averaged(self._average):
            return self._measure(student, deadline)

    def _measure(self, student: Detector, deadline: float | None) -> dict[str, float]:
        """Measure what the reward asks for, in as few passes over the validation images as it takes: one."""
        assets, proxy = self._assets, self.recipe
        metrics: dict[str, float] = {}
        detections: tuple[Mapping[str, Any], ...] = ()
        val_set = assets.data.proxy.val
        loader = assets.data.validation_loader("proxy", proxy.val_subset)
        wanted = [part for part in proxy.reward if part in PRECISION_PARTS]
        if not set(_VALIDATION_PARTS).isdisjoint(proxy.reward):
            taps = assets.teachers.validation_taps("proxy") if "cka" in proxy.reward else None
            validation = validate(student, loader, taps, wants_detections=bool(wanted), deadline=deadline)
            metrics |= {"val_loss": validation.val_loss}
            metrics |= {f"val_loss/{part}": loss for part, loss in validation.losses.items()}
            if validation.cka is not None:
                metrics["cka"] = validation.cka
            detections = validation.detections
        elif wanted:
            found = detect_split(
                student,
                val_set,
                batch_size=EVALUATION_BATCH_SIZE,
                device=assets.device,
                indices=loader.indices(),
                deadline=deadline,
            )
            detections = tuple(found)
        if wanted:
            precision = assets.data.meter(val_set).score(detections, loader.indices())
            metrics |= {part: PRECISION_PARTS[part](precision) for part in wanted}
        return metrics

    def finish(self, student: Detector, files: JobFiles, metrics: dict[str, float], deadline: float | None) -> None:
        """Keep the student's whole state if it may be promoted: then, its weights are needed."""
        job = self._job
        # A student of a promoted one is not promoted itself: a search promotes once.
        if self._assets.config.search.promote_after is not None and job.spec is not None and not job.promoted:
            files.keep(STUDENT_ARTIFACT, "student_state.pt", lambda path: save_weights(path, student.state_dict()))
