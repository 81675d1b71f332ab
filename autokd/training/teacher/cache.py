"""The teacher's taps, computed once for a plan of replayable views and shared by all workers of a machine.

One .npy file a tap, memory-mapped: (N, V, C, H, W) for a level of the pyramid, (N, V, A, K) for class logits,
(N, V, A, 4) for boxes, (N, V, A, 4, E) for edge logits. All are float16 or int8 but the boxes: float16's 11 bits would
round pixels beyond 2048 to even ones, and edges of small boxes to sixteenths. The folder's name is a digest of all that
the taps depend on (``cache_key.py``). A frozen head is the same for all images: it is held beside the files. A cache of
a part of the views (``part.py``) has the axis P in place of N, V.

Legend: N images, V views, P views of a part, B images of a batch, C channels, H x W cells, A candidate boxes,
K classes, E bins.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from autokd.data.orientation import turned
from autokd.detector_outputs import PYRAMID_TAP, TAPS, CrossHead, DetectorOutputs
from autokd.detectors import Detector
from autokd.errors import DataError, NonFiniteError
from autokd.locks import exclusive_lock
from autokd.training.loader import Batch, Loader, Pairs
from autokd.training.teacher.cache_build import CacheBuild, Progress, in_one_form
from autokd.training.teacher.cache_files import CacheFiles, Layout, Rows, rows_of, sound_meta
from autokd.training.teacher.cache_key import HELD_TAP, LEVEL_PREFIX, STORED_TAPS, CacheKey
from autokd.training.teacher.cache_room import building_folder, hold, make_room
from autokd.training.teacher.number_format import widened
from autokd.training.teacher.part import Part

logger = logging.getLogger(__name__)

_READ_IMAGES = 256
"""Images read at a time by ``image_features``, so that a large map is never in memory as a whole."""


class TeacherCache:
    """Taps of one data set under one plan, open for reading."""

    def __init__(
        self,
        folder: Path,
        meta: Mapping[str, Any],
        device: torch.device,
        make_head: Callable[[], CrossHead | None] | None = None,
        part: Part | None = None,
        compute_again: Callable[[Path, Rows], None] | None = None,
    ) -> None:
        """Open the files; nothing is read yet.

        Args:
            folder: folder of a whole cache.
            meta: its meta data (``sound_meta``).
            device: device of the taps that are read.
            make_head: returns the teacher's frozen head. It is called at the first read that asks for the head, since
                the teacher must be built for it.
            part: the views that are held; None: all.
            compute_again: computes rows that are found damaged; None: they are an error.

        Raises:
            DataError: if another process has removed it meanwhile.
        """
        self.folder = folder
        self._part = part
        self.build_s = float(meta.get("build_s", 0.0))
        """Seconds in which one process computes the files; 0 if they do not say it."""
        self._device = device
        self._make_head = make_head
        self._compute_again = compute_again
        self._lock = hold(folder)  # until this object is gone: caches that are open are not removed
        layout = Layout.read(folder)
        if layout is None:
            raise DataError(f"{folder}: the teacher's outputs were there and are gone. Run it again.")
        self._layout = layout
        self._files = CacheFiles(folder, layout)

    @cached_property
    def head(self) -> CrossHead | None:
        """The teacher's own head, cut in two and frozen; None if no term reads it or the teacher has none to cut."""
        return None if self._make_head is None else self._make_head()

    def __call__(self, batch: Batch) -> DetectorOutputs:
        """Return all cached taps of a batch."""
        return self.read(batch.pairs, is_turned=batch.is_turned)

    def image_features(self) -> np.ndarray:
        """Return (N, C) float64: the mean of the pyramid's coarsest level over cells and views; of whole plans only."""
        assert self._part is None, "a part does not hold every image"
        strides = self._layout.strides
        name = LEVEL_PREFIX + max(strides, key=lambda level: strides[level])
        num_images, num_views = self._layout.leading
        parts = []
        for start in range(0, num_images, _READ_IMAGES):
            stop = min(start + _READ_IMAGES, num_images)
            maps_RCHW = self._read(np.arange(start * num_views, stop * num_views), name).cpu().numpy()
            maps_NVCHW = maps_RCHW.reshape(stop - start, num_views, *maps_RCHW.shape[1:])
            parts.append(maps_NVCHW.mean(axis=(1, 3, 4), dtype=np.float64))
        return np.concatenate(parts)

    def only(self, taps: Collection[str]) -> TapsReader:
        """Return a reader of these taps alone, so that a step does not fetch what its distiller does not read."""
        return TapsReader(self, taps)

    def read(self, pairs: Pairs, taps: Collection[str] = TAPS, *, is_turned: bool = False) -> DetectorOutputs:
        """Return cached taps, as float32 on the device.

        Args:
            pairs: (image index, view number) of each image.
            taps: names of the taps; the pyramid is read always, if it is stored.
            is_turned: whether the images are shown in the turned frame.
        """
        layout = self._layout
        rows = rows_of(pairs, self._part, layout.leading[-1])
        levels = [level for level in layout.strides if LEVEL_PREFIX + level in layout.forms]
        names = [name for name in STORED_TAPS if name != PYRAMID_TAP and name in layout.forms and name in taps]
        self._require_sound(rows, [*(LEVEL_PREFIX + level for level in levels), *names])
        return DetectorOutputs(
            # A map of the turned frame is stored in the shape of the other (``in_one_form``).
            pyramid={
                level: in_one_form(self._read(rows, LEVEL_PREFIX + level), LEVEL_PREFIX + level, is_turned)
                for level in levels
            },
            strides={level: layout.strides[level] for level in levels},
            image_size_px=turned(layout.input_size_px) if is_turned else layout.input_size_px,
            head=self.head if HELD_TAP in taps else None,
            **{name: self._read(rows, name) for name in names},  # type: ignore[arg-type]
        )

    def _read(self, rows: Rows, name: str) -> Tensor:
        return widened(name, lambda array: self._files.read(array, rows), self._device)

    def _require_sound(self, rows: Rows, names: Collection[str]) -> None:
        """Have rows computed again that differ from their checksums.

        Raises:
            DataError: if that is not possible.
        """
        arrays = self._files.with_scales(names)
        damaged = self._files.damaged(rows, arrays)
        if not len(damaged):
            return
        logger.warning("%s: %d views are damaged; they are computed again", self.folder, len(damaged))
        try:
            if self._compute_again is not None:
                self._compute_again(self.folder, damaged)
        except OSError as error:
            raise DataError(
                f"{self.folder}: {len(damaged)} views of the teacher's outputs are damaged, and cannot be computed "
                f"again ({error.strerror or error}). Remove the folder, or take another cache (--cache-dir)."
            ) from error
        if len(self._files.damaged(damaged, arrays)):
            raise DataError(
                f"{self.folder}: the teacher's taps were written but cannot be read back. Is the disk sound?"
            )


class TapsOfOne(Protocol):
    """One teacher's taps: a ``TeacherCache``, some taps of it, outputs in memory, or a ``LiveTeacher``."""

    def __call__(self, batch: Batch) -> DetectorOutputs:
        """Return the teacher's taps of a batch, without gradient."""
        ...


@dataclass(frozen=True)
class TapsReader:
    """Reads some taps of a cache."""

    cache: TeacherCache
    taps: Collection[str]

    def __call__(self, batch: Batch) -> DetectorOutputs:
        return self.cache.read(batch.pairs, self.taps, is_turned=batch.is_turned)


@dataclass(frozen=True)
class SeveralTeachersTaps:
    """Reads the taps of several teachers, in their order, as an ensemble takes them."""

    teachers: tuple[TapsOfOne, ...]

    def __call__(self, batch: Batch) -> tuple[DetectorOutputs, ...]:
        return tuple(teacher(batch) for teacher in self.teachers)


class LiveTeacher:
    """A teacher that runs beside the student on the same pixels, in place of a cache.

    Within a training step it runs in the step's precision: half precision on a GPU.
    """

    def __init__(self, teacher: Detector, taps: tuple[str, ...] = (PYRAMID_TAP,)) -> None:
        """Put the teacher into eval mode.

        Args:
            teacher: the teacher, on the batches' device.
            taps: names of the taps to return.
        """
        self._teacher = teacher.eval()
        self._taps = taps

    @torch.no_grad()
    def __call__(self, batch: Batch) -> DetectorOutputs:
        return self._teacher(batch.images_BCHW, taps=self._taps)


def open_or_build(
    root: Path,
    key: CacheKey,
    loader: Loader,
    make_teacher: Callable[[], Detector],
    on_progress: Progress | None = None,
    make_head: Callable[[], CrossHead | None] | None = None,
    part: Part | None = None,
    max_bytes: int | None = None,
) -> TeacherCache:
    """Open a cache; fill it first if it is missing or cut short. Processes that ask at the same time fill it together.

    Args:
        root: folder of all caches of teachers.
        key: everything that the taps depend on.
        loader: the images in their views.
        make_teacher: returns the teacher; called only to compute.
        on_progress: called with (batches done, batches in all).
        make_head: returns the teacher's head, if terms read the tap ``head`` (see ``TeacherCache``).
        part: the views to hold, whose digest is ``key.part``; None: all views of the loader's plan.
        max_bytes: most bytes of all caches in ``root``; None: no limit.

    Raises:
        DataError: if the disk or ``max_bytes`` is too small, or the folder cannot be written or read back.
        NonFiniteError: if a tap holds a value that its number format cannot.
    """
    assert key.part == ("" if part is None else part.digest), "the key names the part"
    folder = root / key.folder_name
    build = CacheBuild(key, loader, make_teacher, part, on_progress)
    if (meta := sound_meta(folder)) is None:
        try:
            _fill(folder, build, lambda needed: make_room(root, needed, max_bytes))
        except PermissionError as error:
            raise DataError(
                f"{folder}: the teacher's outputs cannot be written there ({error.strerror}: {error.filename}). Take "
                "another cache (--cache-dir), or have its owner let you write."
            ) from error
        meta = sound_meta(folder)
    if meta is None:
        raise DataError(f"{folder}: the teacher's taps were written but cannot be read back. Is the disk sound?")
    return TeacherCache(folder, meta, loader.device, make_head, part, build.compute_again)


def _fill(folder: Path, build: CacheBuild, room: Callable[[int], None]) -> None:
    """Fill a cache in its temporary folder, together with other processes, and rename it."""
    temporary, in_use = building_folder(folder), hold(folder)
    try:
        with exclusive_lock(folder):
            if sound_meta(folder) is not None:
                return
            # What is there is damaged, or of an older format; a rename onto a folder that is not empty would fail.
            shutil.rmtree(folder, ignore_errors=True)
            build.begin(temporary, room)
        build.fill(temporary)
        with exclusive_lock(folder):
            if sound_meta(folder) is None:
                build.finish(temporary, folder)
            shutil.rmtree(temporary, ignore_errors=True)
    except NonFiniteError:
        shutil.rmtree(temporary, ignore_errors=True)  # it would be so again
        raise
    finally:
        if in_use is not None:
            in_use.close()


__all__ = [
    "LiveTeacher",
    "SeveralTeachersTaps",
    "TapsOfOne",
    "TapsReader",
    "TeacherCache",
    "open_or_build",
    "sound_meta",
]
