"""Teachers of a run, and their cached outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from autokd.detector_outputs import PYRAMID_TAP, CrossHead
from autokd.detectors import Detector
from autokd.errors import DetectorError
from autokd.jobs import RecipeName
from autokd.training.assets.data import DataAssets
from autokd.training.assets.outputs_in_memory import OutputsInMemory
from autokd.training.assets.teacher_outputs import OutputNeeds
from autokd.training.assets.wanted_outputs import OpenCache, WantedOutputs
from autokd.training.distillation import TeacherTaps
from autokd.training.loader import EVALUATION_BATCH_SIZE, Loader, identity_plan, training_plan
from autokd.training.teacher.cache import LiveTeacher, SeveralTeachersTaps, TapsOfOne, TeacherCache, open_or_build
from autokd.training.teacher.cache_key import HELD_TAP
from autokd.training.teacher.features import obtain_features
from autokd.training.teacher.memory import TapsInMemory
from autokd.training.teacher.obtain import WEIGHTS_FILE, OnProgress, Teacher, no_progress, obtain_teacher
from autokd.training.teacher.part import Part

TAPS_FOLDER = "teacher_taps"
"""Name of the folder of all caches of teachers, in the cache folder."""


class TeacherAssets:
    """The teachers of a run, found or trained when they are first needed, and their outputs: stored, kept, or live."""

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
        self._caches: dict[OpenCache, TeacherCache] = {}
        # Frozen heads by the teacher's digest; a few MiB each, kept until the process ends. None: it has no head to
        # cut, which takes a look at the detector to know.
        self._heads: dict[str, CrossHead | None] = {}
        # Teachers that run beside students, by digest: kept until the process ends.
        self._live: dict[str, Detector] = {}
        self._memory = OutputsInMemory()

    @cached_property
    def all(self) -> tuple[Teacher, ...]:
        """Every teacher of the configuration, in its order. Trains what has no weights yet (``obtain_teacher``)."""
        if self._given is not None:
            return self._given
        return tuple(self.one(position) for position in range(len(self._data.config.teachers)))

    def one(self, position: int) -> Teacher:
        """Return the teacher at a position of the configuration; train it if it has no weights yet."""
        data, sections = self._data, self._data.config.teachers
        return obtain_teacher(
            sections[position],
            data.full.train,
            data.cache_dir,
            data.device,
            self._on_progress,
            "teacher" if len(sections) == 1 else f"teacher {position + 1}",
            data.config.runtime.checkpoint_every_s,
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
    ) -> WantedOutputs:
        train_set = self._data.of(recipe).train
        plan = training_plan(train_set, self._data.recipe(recipe))
        wanted = frozenset((*self.needs.training_taps(recipe), *taps))
        return WantedOutputs(teacher or self.first, train_set, plan, "training", wanted, part)

    def training_taps(
        self,
        recipe: RecipeName,
        taps: Collection[str],
        teacher: Teacher | None = None,
        part: Part | None = None,
    ) -> TapsOfOne:
        """Return a teacher's outputs of the recipe's training batches: from disk, from memory, or live.

        Args:
            recipe: name of the recipe.
            taps: taps that the job's distiller reads.
            teacher: None for the first.
            part: the views that the job shows, if these alone are to be kept; None: all.
        """
        teacher, place = teacher or self.first, self.needs.place(recipe)
        if place == "disk":
            return self.training_cache(recipe, taps, teacher, part).only(taps)
        if place == "memory":
            assert part is not None, "memory holds the views of one training"
            return self._in_memory(recipe, "training", teacher, part, taps).only(taps)
        return self.live_taps(taps, teacher)

    def live_taps(self, taps: Collection[str], teacher: Teacher) -> LiveTeacher:
        """Return a teacher that runs on whatever images a batch has."""
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

    def _validation_cache(self, recipe: RecipeName, teacher: Teacher | None, part: Part | None) -> WantedOutputs:
        val_set = self._data.of(recipe).val
        fraction = self.needs.validation_part(recipe)
        if part is None and fraction is not None and fraction < 1:
            indices = self._data.validation_loader(recipe, fraction).indices()
            part = Part.of(((index, 0) for index in indices), 1)
        plan = identity_plan(val_set)
        return WantedOutputs(teacher or self.first, val_set, plan, "validation", frozenset((PYRAMID_TAP,)), part)

    def validation_taps(self, recipe: RecipeName = "full", part: Part | None = None) -> TeacherTaps:
        """Return every teacher's pyramids of the validation images, as one: from disk, from memory, or live.

        Args:
            recipe: name of the recipe.
            part: the images; None: all that the recipe's trainings are measured on.
        """
        place = self.needs.place(recipe)
        teachers: tuple[TapsOfOne, ...]
        if place == "disk":
            teachers = tuple(self.validation_cache(recipe, teacher, part) for teacher in self.all)
        elif place == "memory":
            kept = part or self._validated(recipe)
            teachers = tuple(self._in_memory(recipe, "validation", teacher, kept, ()) for teacher in self.all)
        else:
            teachers = tuple(LiveTeacher(self._running(teacher)) for teacher in self.all)
        if len(teachers) == 1:
            return teachers[0]
        return SeveralTeachersTaps(teachers)

    def _validated(self, recipe: RecipeName) -> Part:
        """Return the validation images on which the recipe's trainings are measured."""
        fraction = self._data.config.proxy.val_subset if recipe == "proxy" else 1.0
        indices = self._data.validation_loader(recipe, fraction).indices()
        return Part.of(((index, 0) for index in indices), 1)

    def _in_memory(
        self, recipe: RecipeName, split: str, teacher: Teacher, part: Part, taps: Collection[str]
    ) -> TapsInMemory:
        wanted = {*self.needs.training_taps(recipe), *taps} if split == "training" else {PYRAMID_TAP}

        def make(all_taps: frozenset[str]) -> TapsInMemory:
            head = self._head(teacher) if HELD_TAP in all_taps else None
            return TapsInMemory(self._running(teacher), all_taps, part, head)

        return self._memory.get((recipe, split, teacher.digest), part, wanted, make)

    def _running(self, teacher: Teacher) -> Detector:
        if teacher.digest not in self._live:
            self._live[teacher.digest] = teacher.build(self._data.device).requires_grad_(False)
        return self._live[teacher.digest]

    def image_features(self, recipe: RecipeName) -> np.ndarray:
        """Return (N, C) float64 features of the recipe's training images: ``TeacherCache.image_features``.

        They are those of the first teacher. If no cache holds all images, one pass of the teacher computes them, and
        they are kept.
        """
        if self.needs.is_cached(recipe) and self.needs.holds_all(recipe):
            return self.training_cache(recipe).image_features()
        teacher, train_set = self.first, self._data.of(recipe).train
        plan = training_plan(train_set, self._data.recipe(recipe))
        wanted = WantedOutputs(teacher, train_set, plan, "training", frozenset((PYRAMID_TAP,)))
        key = wanted.key(self._data.config.cache.precision)
        stage = f"{teacher.name} features{self._data.size_note(train_set)}"
        return obtain_features(
            self._data.cache_dir / "teacher_features" / f"{key.folder_name}.npy",
            Loader(train_set, plan, EVALUATION_BATCH_SIZE, self._data.device),
            lambda: teacher.build(self._data.device),
            lambda done, total: self._on_progress(stage, done, total, {}),
        )

    def _folder(self, wanted: WantedOutputs) -> Path:
        return self._data.cache_dir / TAPS_FOLDER / wanted.key(self._data.config.cache.precision).folder_name

    def _cache(self, wanted: WantedOutputs) -> TeacherCache:
        key, teacher = wanted.key(self._data.config.cache.precision), wanted.teacher
        entry = OpenCache(key, HELD_TAP in wanted.taps)
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
                self._data.config.cache.max_bytes,
            )
        return self._caches[entry]

    def _head(self, teacher: Teacher) -> CrossHead | None:
        """Return a teacher's own head, cut in two and frozen; every cache of the teacher holds the same."""
        if teacher.digest not in self._heads:
            self._heads[teacher.digest] = teacher.build_head(self._data.device)
        return self._heads[teacher.digest]
