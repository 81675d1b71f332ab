"""The proxy: a short training by which a candidate is judged."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from autokd.config import ProxyRecipe
from autokd.detectors import Detector
from autokd.jobs import Job
from autokd.training.assets import TrainingAssets
from autokd.training.checkpoint.checkpoints import Checkpoints
from autokd.training.distillation import Distillation
from autokd.training.jobs.candidate_metrics import PRECISION_PARTS, candidate_metrics
from autokd.training.jobs.files import JobFiles
from autokd.training.loader import Loader
from autokd.training.loop import EpochResult, Schedule, StudentExtras, train
from autokd.training.optim.averaging import WeightAverage, averaged
from autokd.training.optim.frozen import parts_of
from autokd.training.seeds import order_seed
from autokd.training.weights import save_weights

STUDENT_ARTIFACT = "student"
"""Name of the artifact with a proxy's whole student, kept if a student may be promoted."""


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
            return candidate_metrics(student, self._assets, "proxy", proxy.val_subset, deadline)

    def finish(self, student: Detector, files: JobFiles, metrics: dict[str, float], deadline: float | None) -> None:
        """Keep the student's whole state if it may be promoted: then, its weights are needed."""
        job = self._job
        # A student of a promoted one is not promoted itself: a search promotes once.
        if self._assets.config.search.promote_after is not None and job.spec is not None and not job.promoted:
            files.keep(STUDENT_ARTIFACT, "student_state.pt", lambda path: save_weights(path, student.state_dict()))


__all__ = ["PRECISION_PARTS", "STUDENT_ARTIFACT", "ProxyTraining"]
