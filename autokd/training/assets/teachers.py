"""Teachers of a run, and their cached outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from autokd.data import DetectionDataset, ViewPlan
from autokd.detector_outputs import PYRAMID_TAP, CrossHead
from autokd.detectors import Detector, structure_text
from autokd.errors import DetectorError
from autokd.jobs import RecipeName
from autokd.training.assets.data import DataAssets
from autokd.training.distillation import TeacherTaps
from autokd.training.loader import EVALUATION_BATCH_SIZE, Loader, identity_plan, training_plan
from autokd.training.teacher.cache import LiveTeacher, SeveralTeachersTaps, TapsReader, TeacherCache, open_or_build
from autokd.training.teacher.cache_key import HELD_TAP, CacheKey, stored_taps
from autokd.training.teacher.obtain import WEIGHTS_FILE, OnProgress, Teacher, no_progress, obtain_teacher
from autokd.training.teacher.required_taps import teacher_taps_of_run


class _OpenCache(NamedTuple):
    """Which open cache: that of a key, with or without the teacher's head."""

    key: CacheKey
    has_head: bool


class TeacherAssets:
    """The teachers of a run, found or trained when they are first needed, and their outputs, cached on disk."""

    def __init__(self, data: DataAssets, on_progress: OnProgress = no_progress) -> None:
        """Find nothing yet.

        Args:
            data: the data sets of the run; teachers and caches lie in its cache folder.
            on_progress: called while a teacher is trained or a cache is filled.
        """
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

    def training_cache(
        self, recipe: RecipeName, taps: Iterable[str] = (), teacher: Teacher | None = None
    ) -> TeacherCache:
        """Return a teacher's outputs for every view of the recipe's training images; build the cache if it is missing.

        Args:
            recipe: name of the recipe.
            taps: taps to hold beside those that the run's distillers read.
            teacher: None for the first.
        """
        train_set = self._data.of(recipe).train
        plan = training_plan(train_set, self._data.recipe(recipe))
        wanted = {*teacher_taps_of_run(self._data.config), *taps}
        return self._cache(teacher or self.first, train_set, plan, "training", wanted)

    def training_taps(
        self, recipe: RecipeName, taps: Collection[str], teacher: Teacher | None = None
    ) -> TapsReader | LiveTeacher:
        """Return a teacher's outputs of the recipe's training batches: from its cache, or of endless views live.

        Args:
            recipe: name of the recipe.
            taps: taps that the job's distiller reads.
            teacher: None for the first.
        """
        teacher = teacher or self.first
        if self._data.recipe(recipe).num_views != "endless":
            return self.training_cache(recipe, taps, teacher).only(taps)
        if teacher.digest not in self._live:
            self._live[teacher.digest] = teacher.build(self._data.device).requires_grad_(False)
        return LiveTeacher(self._live[teacher.digest], tuple(taps))

    def validation_cache(self, recipe: RecipeName = "full", teacher: Teacher | None = None) -> TeacherCache:
        """Return a teacher's pyramids of the validation images as they are; ``teacher``: None for the first."""
        val_set = self._data.of(recipe).val
        return self._cache(teacher or self.first, val_set, identity_plan(val_set), "validation", {PYRAMID_TAP})

    def validation_taps(self, recipe: RecipeName = "full") -> TeacherTaps:
        """Return ``validation_cache`` of every teacher, as one."""
        caches = tuple(self.validation_cache(recipe, teacher) for teacher in self.all)
        return caches[0] if len(caches) == 1 else SeveralTeachersTaps(caches)

    def _cache(
        self, teacher: Teacher, dataset: DetectionDataset, plan: ViewPlan, split: str, wanted: set[str]
    ) -> TeacherCache:
        key = CacheKey(
            teacher_digest=teacher.digest,
            teacher_config=structure_text(teacher.config),
            dataset_fingerprint=dataset.fingerprint,
            plan_digest=plan.digest,
            image_size_px=dataset.image_size_px,
            taps=stored_taps(wanted),
        )
        entry = _OpenCache(key, HELD_TAP in wanted)
        if entry not in self._caches:
            stage = f"{teacher.name} taps, {split}{self._data.size_note(dataset)}"
            self._caches[entry] = open_or_build(
                self._data.cache_dir / "teacher_taps",
                key,
                Loader(dataset, plan, EVALUATION_BATCH_SIZE, self._data.device),
                lambda: teacher.build(self._data.device),
                lambda done, total: self._on_progress(stage, done, total, {}),
                partial(self._head, teacher) if entry.has_head else None,
            )
        return self._caches[entry]

    def _head(self, teacher: Teacher) -> CrossHead | None:
        """Return a teacher's own head, cut in two and frozen; every cache of the teacher holds the same."""
        if teacher.digest not in self._heads:
            self._heads[teacher.digest] = teacher.build_head(self._data.device)
        return self._heads[teacher.digest]
