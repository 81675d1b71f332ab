"""Teachers of a run, and their cached outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from autokd.data import DetectionDataset, ViewPlan
from autokd.detector_outputs import PYRAMID_TAP, CrossHead
from autokd.detectors import Detector, structure_text
from autokd.errors import DetectorError
from autokd.jobs import RecipeName
from autokd.training.assets.data import DataAssets
from autokd.training.assets.teacher_outputs import OutputNeeds
from autokd.training.distillation import TeacherTaps
from autokd.training.loader import EVALUATION_BATCH_SIZE, Loader, identity_plan, training_plan
from autokd.training.teacher.cache import LiveTeacher, SeveralTeachersTaps, TapsReader, TeacherCache, open_or_build
from autokd.training.teacher.cache_key import HELD_TAP, CacheKey, stored_taps
from autokd.training.teacher.features import obtain_features
from autokd.training.teacher.obtain import WEIGHTS_FILE, OnProgress, Teacher, no_progress, obtain_teacher
from autokd.training.teacher.part import Part

TAPS_FOLDER = "teacher_taps"
"""Name of the folder of all caches of teachers, in the cache folder."""


class _OpenCache(NamedTuple):
    """Which open cache: that of a key, with or without the teacher's head."""

    key: CacheKey
    has_head: bool


class _Wanted(NamedTuple):
    """Outputs that are asked for: of which teacher, for which views, which taps."""

    teacher: Teacher
    dataset: DetectionDataset
    plan: ViewPlan
    split: str
    taps: frozenset[str]
    part: Part | None = None


class TeacherAssets:
    """The teachers of a run, found or trained when they are first needed, and their outputs, cached on disk."""

    def __init__(
        self, data: DataAssets, on_progress: OnProgress = no_progress, given: tuple[Teacher, ...] | None = None
    ) -> None:
        """Find nothing yet.

        Args:
            data: the data sets of the run; teachers and caches lie in its cache folder.
            on_progress: called while a teacher is trained or a cache is filled.
            given: the teachers, if they are known already; None: they are found or trained.
        """
        self._given = given
        self._data = data
        self._on_progress = on_progress
        # Open caches. They are memory maps, which the system shares between processes and drops when memory is
        # short: kept until the process ends. Caches of one key share their files.
        self._caches: dict[_OpenCache, TeacherCache] = {}
        # Frozen heads by the teacher's digest; a few MiB each, kept until the process ends. None: it has no head to
        # cut, which takes a look at the detector to know.
        self._heads: dict[str, CrossHead | None] = {}
        # Teachers that run beside students, by digest: kept until the process ends.
        self._live: dict[str, Detector] = {}

    @cached_property
    def all(self) -> tuple[Teacher, ...]:
        """Every teacher of the configuration, in its order. Trains what has no weights yet (``obtain_teacher``)."""
        if self._given is not None:
            return self._given
        data, sections = self._data, self._data.config.teachers
        names = ["teacher"] if len(sections) == 1 else [f"teacher {number}" for number in range(1, len(sections) + 1)]
        return tuple(
            obtain_teacher(
                section,
                data.full.train,
                data.cache_dir,
                data.device,
                self._on_progress,
                name,
                data.config.runtime.checkpoint_every_s,
            )
            for section, name in zip(sections, names, strict=True)
        )

    @property
    def first(self) -> Teacher:
        """The first teacher; most runs have one."""
        return self.all[0]

    def promoted(self, folder: Path) -> Teacher:
        """Return the promoted student as a teacher.

        Args:
            folder: folder of its weights; its name is their digest.

        Raises:
            DetectorError: if the weights are not there.
        """
        if not (folder / WEIGHTS_FILE).is_file():
            raise DetectorError(
                f"{folder}: the promoted student's weights are not there, though the search's database names it as a "
                "teacher. Put the run directory's folder back, or begin a new run."
            )
        train_set = self._data.full.train
        return Teacher(
            self._data.config.student,
            len(train_set.classes),
            train_set.image_size_px,
            folder,
            folder.name,
            train_seconds=0.0,
            is_trained_here=True,
            classes=train_set.classes,
            name="promoted student",
        )

    @property
    def needs(self) -> OutputNeeds:
        """Which outputs the run reads."""
        train, val = self._data.full.train, self._data.full.val
        return OutputNeeds(self._data.config, train.num_images, val.num_images, train.frames.num_turned)

    def training_cache(
        self, recipe: RecipeName, taps: Iterable[str] = (), teacher: Teacher | None = None, part: Part | None = None
    ) -> TeacherCache:
        """Return a teacher's outputs for views of the recipe's training images; build the cache if it is missing.

        Args:
            recipe: name of the recipe.
            taps: taps to hold beside those that the recipe's distillers read.
            teacher: None for the first.
            part: the views to hold; None: all.
        """
        return self._cache(self._training_cache(recipe, taps, teacher, part))

    def training_folder(
        self, recipe: RecipeName, taps: Iterable[str] = (), teacher: Teacher | None = None, part: Part | None = None
    ) -> Path:
        """Return the folder of ``training_cache``, which may not exist yet."""
        return self._folder(self._training_cache(recipe, taps, teacher, part))

    def _training_cache(
        self, recipe: RecipeName, taps: Iterable[str], teacher: Teacher | None, part: Part | None
    ) -> _Wanted:
        train_set = self._data.of(recipe).train
        plan = training_plan(train_set, self._data.recipe(recipe))
        wanted = frozenset((*self.needs.training_taps(recipe), *taps))
        return _Wanted(teacher or self.first, train_set, plan, "training", wanted, part)

    def training_taps(
        self,
        recipe: RecipeName,
        taps: Collection[str],
        teacher: Teacher | None = None,
        part: Part | None = None,
    ) -> TapsReader | LiveTeacher:
        """Return a teacher's outputs of the recipe's training batches: from its cache, or of endless views live.

        Args:
            recipe: name of the recipe.
            taps: taps that the job's distiller reads.
            teacher: None for the first.
            part: the views that the job shows, if its cache is to hold these alone; None: all.
        """
        teacher = teacher or self.first
        if self.needs.is_cached(recipe):
            return self.training_cache(recipe, taps, teacher, part).only(taps)
        return LiveTeacher(self._running(teacher), tuple(taps))

    def validation_cache(
        self, recipe: RecipeName = "full", teacher: Teacher | None = None, part: Part | None = None
    ) -> TeacherCache:
        """Return a teacher's pyramids of the recipe's validation images as they are.

        Args:
            recipe: name of the recipe.
            teacher: None for the first.
            part: the images to hold; None: all, of the proxy those of ``val_subset`` alone, unless full trainings need
                all of the same size.
        """
        return self._cache(self._validation_cache(recipe, teacher, part))

    def validation_folder(self, recipe: RecipeName = "full", teacher: Teacher | None = None) -> Path:
        """Return the folder of ``validation_cache``, which may not exist yet."""
        return self._folder(self._validation_cache(recipe, teacher, None))

    def _validation_cache(self, recipe: RecipeName, teacher: Teacher | None, part: Part | None) -> _Wanted:
        val_set = self._data.of(recipe).val
        fraction = self.needs.validation_part(recipe)
        if part is None and fraction is not None and fraction < 1:
            indices = self._data.validation_loader(recipe, fraction).indices()
            part = Part.of(((index, 0) for index in indices), 1)
        plan = identity_plan(val_set)
        return _Wanted(teacher or self.first, val_set, plan, "validation", frozenset((PYRAMID_TAP,)), part)

    def validation_taps(self, recipe: RecipeName = "full", part: Part | None = None) -> TeacherTaps:
        """Return every teacher's pyramids of the validation images, as one; beside endless views, teachers run live.

        Args:
            recipe: name of the recipe.
            part: the images; None: all that the recipe's trainings are measured on.
        """
        teachers: tuple[TeacherCache | LiveTeacher, ...]
        if self.needs.is_cached(recipe):
            teachers = tuple(self.validation_cache(recipe, teacher, part) for teacher in self.all)
        else:
            teachers = tuple(LiveTeacher(self._running(teacher)) for teacher in self.all)
        if len(teachers) == 1:
            return teachers[0]
        return SeveralTeachersTaps(teachers)

    def _running(self, teacher: Teacher) -> Detector:
        if teacher.digest not in self._live:
            self._live[teacher.digest] = teacher.build(self._data.device).requires_grad_(False)
        return self._live[teacher.digest]

    def image_features(self, recipe: RecipeName) -> np.ndarray:
        """Return (N, C) float64 features of the recipe's training images: ``TeacherCache.image_features``.

        They are those of the first teacher. If no cache holds all images, one pass of the teacher computes them, and
        they are kept.
        """
        if self.needs.holds_all(recipe):
            return self.training_cache(recipe).image_features()
        teacher, train_set = self.first, self._data.of(recipe).train
        plan = training_plan(train_set, self._data.recipe(recipe))
        key = _key(_Wanted(teacher, train_set, plan, "training", frozenset((PYRAMID_TAP,))))
        stage = f"{teacher.name} features{self._data.size_note(train_set)}"
        return obtain_features(
            self._data.cache_dir / "teacher_features" / f"{key.folder_name}.npy",
            Loader(train_set, plan, EVALUATION_BATCH_SIZE, self._data.device),
            lambda: teacher.build(self._data.device),
            lambda done, total: self._on_progress(stage, done, total, {}),
        )

    def _folder(self, wanted: _Wanted) -> Path:
        return self._data.cache_dir / TAPS_FOLDER / _key(wanted).folder_name

    def _cache(self, wanted: _Wanted) -> TeacherCache:
        key, teacher = _key(wanted), wanted.teacher
        entry = _OpenCache(key, HELD_TAP in wanted.taps)
        if entry not in self._caches:
            stage = f"{teacher.name} taps, {wanted.split}{self._data.size_note(wanted.dataset)}"
            self._caches[entry] = open_or_build(
                self._data.cache_dir / TAPS_FOLDER,
                key,
                Loader(wanted.dataset, wanted.plan, EVALUATION_BATCH_SIZE, self._data.device),
                lambda: teacher.build(self._data.device),
                lambda done, total: self._on_progress(stage, done, total, {}),
                partial(self._head, teacher) if entry.has_head else None,
                wanted.part,
            )
        return self._caches[entry]

    def _head(self, teacher: Teacher) -> CrossHead | None:
        """Return a teacher's own head, cut in two and frozen; every cache of the teacher holds the same."""
        if teacher.digest not in self._heads:
            self._heads[teacher.digest] = teacher.build_head(self._data.device)
        return self._heads[teacher.digest]


def _key(wanted: _Wanted) -> CacheKey:
    return CacheKey(
        teacher_digest=wanted.teacher.digest,
        teacher_config=structure_text(wanted.teacher.config),
        dataset_fingerprint=wanted.dataset.fingerprint,
        plan_digest=wanted.plan.digest,
        image_size_px=wanted.dataset.image_size_px,
        taps=stored_taps(wanted.taps),
        part="" if wanted.part is None else wanted.part.digest,
    )
