"""Outputs of a teacher that are asked for, and the cache that holds them."""

from __future__ import annotations

from typing import NamedTuple

from autokd.data import DetectionDataset, ViewPlan
from autokd.detectors import structure_text
from autokd.training.teacher.cache_key import CacheKey, stored_taps
from autokd.training.teacher.obtain import Teacher
from autokd.training.teacher.part import Part


class OpenCache(NamedTuple):
    """Which open cache: that of a key, with or without the teacher's head."""

    key: CacheKey
    has_head: bool


class WantedOutputs(NamedTuple):
    """Outputs that are asked for: of which teacher, for which views, which taps."""

    teacher: Teacher
    dataset: DetectionDataset
    plan: ViewPlan
    split: str
    taps: frozenset[str]
    part: Part | None = None

    def key(self, precision: str) -> CacheKey:
        """Return the key of the cache that holds them.

        Args:
            precision: ``cache.precision``.
        """
        return CacheKey(
            teacher_digest=self.teacher.digest,
            teacher_config=structure_text(self.teacher.config),
            dataset_fingerprint=self.dataset.fingerprint,
            plan_digest=self.plan.digest,
            image_size_px=self.dataset.image_size_px,
            taps=stored_taps(self.taps),
            dtype=precision,
            part="" if self.part is None else self.part.digest,
        )
