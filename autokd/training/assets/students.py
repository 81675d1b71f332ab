"""Students as trainings start from them: new, or warm-started."""

from __future__ import annotations

import logging
import math
from typing import Any

from torch import Tensor

from autokd.config import Recipe, WarmStart
from autokd.detectors import Detector, build_detector, structure_text
from autokd.files import digest_of, move_aside
from autokd.jobs import TRAINING_VERSION
from autokd.locks import exclusive_lock
from autokd.training.assets.data import DataAssets
from autokd.training.checkpoint.cached import cached_checkpoints
from autokd.training.checkpoint.checkpoints import Checkpoints
from autokd.training.length import training_length
from autokd.training.loader import Loader, training_plan
from autokd.training.loop import Schedule, train
from autokd.training.seeds import random_stream
from autokd.training.teacher.obtain import OnProgress, file_digest, no_progress
from autokd.training.weights import load_with_digest, save_with_digest

logger = logging.getLogger(__name__)


class StudentAssets:
    """Builds students. Warm starts are trained once a seed, stored in the cache folder, and kept in memory."""

    def __init__(self, data: DataAssets, on_progress: OnProgress = no_progress) -> None:
        """Train nothing yet.

        Args:
            data: the data sets of the run; warm starts lie in its cache folder.
            on_progress: called while a warm start is trained.
        """
        self._data = data
        self._on_progress = on_progress
        # State dicts on the CPU by seed, kept until the process ends: a search reads the same one for every trial.
        self._warm_starts: dict[int, dict[str, Tensor]] = {}

    def new(self, seed: int) -> Detector:
        """Return an untrained student, or the one of its checkpoint; its weights depend on ``seed`` alone.

        Its levels and anchors are those of the full trainings, also if proxies see smaller images.
        """
        config, dataset = self._data.config, self._data.full.train
        with random_stream(self._data.device, seed, "weights"):
            student = build_detector(config.student, len(dataset.classes), dataset.image_size_px, dataset.classes)
        return student.to(self._data.device)

    def warm(self, seed: int) -> Detector:
        """Return a student as proxies start from it: trained for a while without distillation, or new."""
        student = self.new(seed)
        warm_start = self._data.config.proxy.warm_start
        if warm_start is not None and warm_start.epochs > 0:
            if seed not in self._warm_starts:
                self._warm_starts[seed] = self._obtain_warm_start(seed)
            student.load_state_dict(self._warm_starts[seed])
        return student

    def warm_start_key(self, seed: int) -> str:
        """Return the digest of all that the weights of the configuration's warm start depend on."""
        config, warm_start = self._data.config, self._warm_start
        limit = {} if warm_start.images is None else {"images": warm_start.images}
        return digest_of(
            **limit,
            student=structure_text(config.student),
            checkpoint=file_digest(config.student.checkpoint),
            recipe=_decisive_fields(config.full),
            epochs=warm_start.epochs,
            of_epochs=warm_start.of_epochs or config.full.epochs,
            data=self._data.proxy.train.fingerprint,
            seed=seed,
            version=TRAINING_VERSION,
        )

    @property
    def _warm_start(self) -> WarmStart:
        warm_start = self._data.config.proxy.warm_start
        assert warm_start is not None, "only proxies that start warm ask for it"
        return warm_start

    def _obtain_warm_start(self, seed: int) -> dict[str, Tensor]:
        path = self._data.cache_dir / "warm_starts" / f"{self.warm_start_key(seed)}.pt"
        if (found := load_with_digest(path)) is not None:
            return found
        with exclusive_lock(path):
            # Another process may have trained it while this one waited for the lock.
            if (found := load_with_digest(path)) is None:
                if (aside := move_aside(path)) is not None:
                    logger.warning("%s is damaged, and kept as %s; the warm start is trained again", path, aside.name)
                every_s = self._data.config.runtime.checkpoint_every_s
                checkpoints = cached_checkpoints(self._data.cache_dir, "warm_start", path.stem, every_s)
                found = self._train(seed, checkpoints)
                save_with_digest(path, found)
                checkpoints.delete()
        return found

    def _train(self, seed: int, checkpoints: Checkpoints) -> dict[str, Tensor]:
        """Train by the full recipe, on the proxies' images, for as long as the warm start says."""
        recipe, train_set, warm_start = self._data.config.full, self._data.proxy.train, self._warm_start
        student = self.new(seed)
        loader = Loader(train_set, training_plan(train_set, recipe), recipe.batch_size, self._data.device)
        schedule_epochs = warm_start.of_epochs or recipe.epochs
        stop_after_steps = None if warm_start.images is None else math.ceil(warm_start.images / recipe.batch_size)
        length = training_length(
            train_set.num_images,
            recipe.batch_size,
            schedule_epochs,
            recipe.most_steps,
            train_set.frames.num_turned,
        )
        last = min(warm_start.epochs, length.epochs)
        if stop_after_steps is not None:
            last = min(last, math.ceil(stop_after_steps / loader.steps_per_epoch(seed)))
        stage = f"warm start, seed {seed}{self._data.size_note(train_set)}"
        self._on_progress(stage, 0, last, {})
        schedule = Schedule(
            stop_after=last,
            num_epochs=schedule_epochs,
            max_steps=recipe.most_steps,
            stop_after_steps=stop_after_steps,
        )
        for result in train(student, loader, recipe, seed=seed, schedule=schedule, checkpoints=checkpoints):
            self._on_progress(stage, result.epoch, last, {"train_loss": result.task_loss})
        return student.state_dict()


def _decisive_fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields that decide a training's weights, but for its epochs.

    Fields that recipes got after warm starts were stored are left out at their defaults, so that keys stay.
    """
    written = set(Recipe.model_fields) - recipe.unwritten() - {"epochs"}
    return {name: getattr(recipe, name) for name in sorted(written)}
