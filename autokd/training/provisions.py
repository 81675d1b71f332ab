"""What trainings share: data, teacher, its taps, warm starts. Each is made once and then kept by content.

``prepare`` makes everything before a search; a worker makes the same ``Provisions`` and finds it all made. On
a machine without the driver's files a worker makes for itself what it misses.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autokd.config import ProxyRecipe, Recipe, ResolvedConfig
from autokd.data import Datasets, DetectionDataset, ViewPlan, k_centre_indices, load_datasets, stratified_indices
from autokd.detectors import Detector, build_detector
from autokd.errors import DetectorError
from autokd.outcomes import TRAINING_VERSION
from autokd.outputs import CrossHead
from autokd.training.content import digest_of, exclusive, load_weights, save_weights
from autokd.training.loader import Loader, identity_plan, training_plan
from autokd.training.loop import PYRAMID_TAP, TeacherTaps, train
from autokd.training.measure.average_precision import PrecisionMeter
from autokd.training.seeds import random_stream
from autokd.training.teacher.cache import SeveralTeachersTaps, TeacherCache, open_or_build
from autokd.training.teacher.key import HELD_TAP, TapsKey, stored_taps
from autokd.training.teacher.obtain import (
    WEIGHTS_FILE,
    OnProgress,
    Teacher,
    detector_text,
    file_digest,
    no_progress,
    obtain_teacher,
)
from autokd.training.teacher.wanted_taps import teacher_taps_of_run

EVALUATION_BATCH_SIZE = 16


def recipe_data(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that decides a training's weights, but for its length."""
    return {name: getattr(recipe, name) for name in sorted(Recipe.model_fields) if name != "epochs"}


class Provisions:
    """Everything that the trainings of one process share; each part is loaded when first needed."""

    def __init__(
        self,
        config: ResolvedConfig,
        cache_dir: Path,
        device: torch.device,
        datasets: Datasets | None = None,
        on_progress: OnProgress = no_progress,
    ) -> None:
        self.config = config
        self.cache_dir = Path(cache_dir)
        self.device = device
        self._given_datasets = datasets
        self._on_progress = on_progress
        self._taps: dict[str, TeacherCache] = {}
        self._warm_starts: dict[int, dict[str, Tensor]] = {}
        self._subsets: dict[tuple[str, float, int], tuple[int, ...]] = {}
        self._meters: dict[str, PrecisionMeter] = {}
        self._heads: dict[str, CrossHead | None] = {}

    @cached_property
    def datasets(self) -> Datasets:
        # The driver has checked the files before any worker came.
        return self._given_datasets or load_datasets(self.config.data, self.cache_dir, check=False)

    @cached_property
    def proxy_datasets(self) -> Datasets:
        """What proxies and their warm starts see: the same splits, at ``proxy.image_size_px``."""
        size = self.config.proxy.image_size_px
        return self.datasets if size is None else self.datasets.at_size(size)

    def datasets_of(self, recipe: Recipe) -> Datasets:
        """What trainings by ``recipe`` see."""
        return self.proxy_datasets if isinstance(recipe, ProxyRecipe) else self.datasets

    @property
    def num_teachers(self) -> int:
        return len(self.config.teachers)

    @property
    def teacher(self) -> Teacher:
        """The first; as a rule there is one."""
        return self.teachers[0]

    @cached_property
    def teachers(self) -> tuple[Teacher, ...]:
        """Found, or trained: see ``obtain_teacher``."""
        return tuple(
            obtain_teacher(config, self.datasets.train, self.cache_dir, self.device, self.progress_of(self._name(i)))
            for i, config in enumerate(self.config.teachers)
        )

    def promoted(self, folder: Path) -> Teacher:
        """The student of an earlier trial as a teacher; ``folder``, named by the digest, holds its weights."""
        if not (folder / WEIGHTS_FILE).is_file():
            raise DetectorError(
                f"{folder}: the promoted student's weights are not there, though the search's database says that it "
                "teaches. Put the run directory's folder back, or begin a new run."
            )
        size, classes = self.datasets.train.image_size_px, self.datasets.train.classes
        return Teacher(self.config.student, len(classes), size, folder, folder.name, 0.0, True, classes)

    def teacher_head(self, teacher: Teacher) -> CrossHead | None:
        """A teacher's own head, cut in two and frozen; made at the first read of a cache whose taps need it."""
        if teacher.digest not in self._heads:
            self._heads[teacher.digest] = teacher.build_head(self.device)
        return self._heads[teacher.digest]

    def name_of(self, teacher: Teacher) -> str:
        """How stages of the work name it: "teacher", of several "teacher 2", else "promoted student"."""
        positions = [i for i, own in enumerate(self.teachers) if own is teacher]
        return self._name(positions[0]) if positions else "promoted student"

    def _name(self, position: int) -> str:
        return "teacher" if self.num_teachers == 1 else f"teacher {position + 1}"

    def progress_of(self, name: str) -> OnProgress:
        """Tells stages with the teacher's name: "teacher 2 taps, training"."""
        on_progress = self._on_progress
        return lambda stage, done, total, metrics: on_progress(stage.replace("teacher", name, 1), done, total, metrics)

    def meter(self, dataset: DetectionDataset) -> PrecisionMeter:
        return self._meters.setdefault(dataset.fingerprint, PrecisionMeter(dataset))

    # ------------------------------------------------------------------------------------- loaders

    def training_loader(self, recipe: Recipe, subset: float = 1.0) -> Loader:
        """Of ``subset`` of the images; which of them, a proxy's ``subset_rule`` says."""
        train_set = self.datasets_of(recipe).train
        choose = None
        if isinstance(recipe, ProxyRecipe) and recipe.subset_rule != "random" and subset < 1:
            choose = partial(self._chosen, recipe, subset)
        return Loader(
            train_set, training_plan(train_set, recipe), recipe.batch_size, self.device, subset, choose=choose
        )

    def _chosen(self, recipe: ProxyRecipe, subset: float, seed: int) -> tuple[int, ...]:
        """The images that ``subset_rule`` chooses; of several teachers, the first's features count."""
        key = (recipe.subset_rule, subset, seed)
        if key not in self._subsets:
            if recipe.subset_rule == "stratified":
                boxes_NK = self.datasets_of(recipe).train.boxes_by_class()
                self._subsets[key] = stratified_indices(boxes_NK, subset, seed)
            else:
                self._subsets[key] = k_centre_indices(self.training_taps(recipe).image_features(), subset, seed)
        return self._subsets[key]

    def validation_loader(self, subset: float = 1.0, datasets: Datasets | None = None) -> Loader:
        val_set = (datasets or self.datasets).val
        return Loader(val_set, identity_plan(val_set), EVALUATION_BATCH_SIZE, self.device, subset)

    # ---------------------------------------------------------------------------------------- taps

    def training_taps(self, recipe: Recipe, taps: Iterable[str] = (), teacher: Teacher | None = None) -> TeacherCache:
        """A teacher's taps (the first's) of every view of ``recipe``: those that the run reads, and ``taps``."""
        train_set = self.datasets_of(recipe).train
        wanted = {*teacher_taps_of_run(self.config), *taps}
        return self._taps_of(
            teacher or self.teacher, train_set, training_plan(train_set, recipe), "teacher taps, training", wanted
        )

    def validation_taps(self, teacher: Teacher | None = None, datasets: Datasets | None = None) -> TeacherCache:
        """A teacher's (the first's) pyramid of the validation images as they are."""
        val_set = (datasets or self.datasets).val
        return self._taps_of(
            teacher or self.teacher, val_set, identity_plan(val_set), "teacher taps, validation", {PYRAMID_TAP}
        )

    def all_validation_taps(self, datasets: Datasets | None = None) -> TeacherTaps:
        """``validation_taps`` of every teacher."""
        taps = tuple(self.validation_taps(teacher, datasets) for teacher in self.teachers)
        return taps[0] if len(taps) == 1 else SeveralTeachersTaps(taps)

    def _taps_of(
        self, teacher: Teacher, dataset: DetectionDataset, plan: ViewPlan, stage: str, wanted: set[str]
    ) -> TeacherCache:
        key = TapsKey(
            teacher_digest=teacher.digest,
            teacher_config=detector_text(teacher.config),
            dataset_fingerprint=dataset.fingerprint,
            plan_digest=plan.digest,
            image_size_px=dataset.image_size_px,
            taps=stored_taps(wanted),
        )
        name = f"{key.folder_name} {HELD_TAP in wanted}"
        if name not in self._taps:
            on_progress = self.progress_of(self.name_of(teacher))
            stage += self._size_note(dataset)
            self._taps[name] = open_or_build(
                self.cache_dir / "teacher_taps",
                key,
                Loader(dataset, plan, EVALUATION_BATCH_SIZE, self.device),
                lambda: teacher.build(self.device),
                lambda done, total: on_progress(stage, done, total, {}),
                (lambda: self.teacher_head(teacher)) if HELD_TAP in wanted else None,
            )
        return self._taps[name]

    def _size_note(self, dataset: DetectionDataset) -> str:
        """Behind a stage's name, where its images are not of the data's own size."""
        size = dataset.image_size_px
        return "" if size == self.datasets.train.image_size_px else f", {size[0]} x {size[1]} px"

    # ------------------------------------------------------------------------------------ students

    def new_student(self, seed: int) -> Detector:
        """An untrained student (or its checkpoint); its weights depend on ``seed`` alone.

        Its levels and anchors are those of the full trainings, also where proxies see smaller images.
        """
        dataset = self.datasets.train
        with random_stream(self.device, seed, "weights"):
            student = build_detector(self.config.student, len(dataset.classes), dataset.image_size_px, dataset.classes)
        return student.to(self.device)

    def warm_student(self, seed: int) -> Detector:
        """A student as the proxy starts from it: half-trained without distillation, or new."""
        student = self.new_student(seed)
        warm_start = self.config.proxy.warm_start
        if warm_start is not None and warm_start.epochs > 0:
            if seed not in self._warm_starts:
                self._warm_starts[seed] = self._obtain_warm_start(seed)
            student.load_state_dict(self._warm_starts[seed])
        return student

    def _obtain_warm_start(self, seed: int) -> dict[str, Tensor]:
        path = self.cache_dir / "warm_starts" / f"{self._warm_start_key(seed)}.pt"
        if not path.exists():
            with exclusive(path):
                if not path.exists():
                    save_weights(path, self._train_warm_start(seed))
        return load_weights(path)

    def _warm_start_key(self, seed: int) -> str:
        warm_start = self.config.proxy.warm_start
        assert warm_start is not None
        return digest_of(
            student=detector_text(self.config.student),
            checkpoint=file_digest(self.config.student.checkpoint),
            recipe=recipe_data(self.config.full),
            epochs=warm_start.epochs,
            of_epochs=warm_start.of_epochs or self.config.full.epochs,
            data=self.proxy_datasets.train.fingerprint,
            seed=seed,
            version=TRAINING_VERSION,
        )

    def _train_warm_start(self, seed: int) -> dict[str, Tensor]:
        config, warm_start, train_set = self.config, self.config.proxy.warm_start, self.proxy_datasets.train
        assert warm_start is not None
        student = self.new_student(seed)
        loader = Loader(train_set, training_plan(train_set, config.full), config.full.batch_size, self.device)
        schedule_epochs = warm_start.of_epochs or config.full.epochs
        stage, last = f"warm start, seed {seed}{self._size_note(train_set)}", min(warm_start.epochs, schedule_epochs)
        self._on_progress(stage, 0, last, {})
        for result in train(
            student,
            loader,
            config.full,
            seed=seed,
            stop_after=last,
            schedule_epochs=schedule_epochs,
        ):
            self._on_progress(stage, result.epoch, last, {"train_loss": result.task_loss})
        return student.state_dict()
