"""The teacher's taps, computed once for a plan of replayable views and shared by all workers of a machine.

One .npy file a tap, memory-mapped: (N, V, C, H, W) for a level of the pyramid, (N, V, A, K) for class logits,
(N, V, A, 4) for boxes, (N, V, A, 4, E) for edge logits. All are float16 but the boxes: its 11 bits would round pixels
beyond 2048 to even ones, and edges of small boxes to sixteenths. The folder's name is a digest of all that the taps
depend on (``cache_key.py``). A frozen head is the same for all images: it is held beside the files. A cache of a part
of the views (``part.py``) has the axis P in place of N, V.

Legend: N images, V views, P views of a part, B images of a batch, C channels, H x W cells, A candidate boxes,
K classes, E bins.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autokd.data.orientation import turned
from autokd.detector_outputs import PYRAMID_TAP, TAPS, CrossHead, DetectorOutputs
from autokd.detectors import Detector
from autokd.errors import DataError
from autokd.files import atomic_folder, exclusive_lock, read_meta
from autokd.training.loader import Batch, Loader, Pairs
from autokd.training.teacher.cache_build import LEVEL_PREFIX, Progress, build, checksum, in_one_form, rows_of
from autokd.training.teacher.cache_key import FORMAT_VERSION, HELD_TAP, STORED_TAPS, CacheKey
from autokd.training.teacher.part import Part

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
    ) -> None:
        """Open the files; nothing is read yet.

        Args:
            folder: folder of a whole and sound cache.
            meta: its meta data (``sound_meta``).
            device: device of the taps that are read.
            make_head: returns the teacher's frozen head. It is called at the first read that asks for the head, since
                the teacher must be built for it.
            part: the views that are held; None: all.
        """
        self.folder = folder
        self._part = part
        self.build_s = float(meta.get("build_s", 0.0))
        """Seconds in which the files were computed; 0 if they do not say it."""
        self._device = device
        self._make_head = make_head
        self._strides: dict[str, int] = dict(meta["strides"])
        height, width = meta["input_size_px"]
        self._input_size_px = (int(height), int(width))
        self._arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in meta["arrays"]}

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
        level = max(self._strides, key=lambda name: self._strides[name])
        maps_NVCHW = self._arrays[LEVEL_PREFIX + level]
        starts = range(0, len(maps_NVCHW), _READ_IMAGES)
        parts = (maps_NVCHW[start : start + _READ_IMAGES] for start in starts)
        return np.concatenate([part.mean(axis=(1, 3, 4), dtype=np.float64) for part in parts])

    def only(self, taps: Collection[str]) -> TapsReader:
        """Return a reader of these taps alone, so that a step does not fetch what its distiller does not read."""
        return TapsReader(self, taps)

    def read(self, pairs: Pairs, taps: Collection[str] = TAPS, *, is_turned: bool = False) -> DetectorOutputs:
        """Return cached taps, as float32 on the device.

        Args:
            pairs: (image index, view number) of each image.
            taps: names of the taps; the pyramid is read always.
            is_turned: whether the images are shown in the turned frame.
        """
        rows = rows_of(pairs, self._part)

        def tap(name: str) -> Tensor | None:
            if name not in self._arrays or (name in TAPS and name not in taps):
                return None
            # A map of the turned frame is stored in the shape of the other (``in_one_form``).
            found = torch.from_numpy(self._arrays[name][rows]).to(self._device).float()
            return in_one_form(found, name, is_turned)

        stored: dict[str, Any] = {name: tap(name) for name in STORED_TAPS if name != PYRAMID_TAP}
        pyramid = {level: tap(LEVEL_PREFIX + level) for level in self._strides}
        return DetectorOutputs(
            pyramid={level: map_BCHW for level, map_BCHW in pyramid.items() if map_BCHW is not None},
            strides=self._strides,
            image_size_px=turned(self._input_size_px) if is_turned else self._input_size_px,
            head=self.head if HELD_TAP in taps else None,
            **stored,
        )


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

    teachers: tuple[Callable[[Batch], DetectorOutputs], ...]

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
) -> TeacherCache:
    """Open a cache; build it first if it is missing, cut short or damaged. One process builds, the others wait.

    Args:
        root: folder of all caches of teachers.
        key: everything that the taps depend on.
        loader: the images in their views.
        make_teacher: returns the teacher; called only to build.
        on_progress: called with (batches done, batches in all).
        make_head: returns the teacher's head, if terms read the tap ``head`` (see ``TeacherCache``).
        part: the views to hold, whose digest is ``key.part``; None: all views of the loader's plan.

    Raises:
        DataError: if the disk is too small, or the files cannot be read back.
        NonFiniteError: if a tap holds a value that its number format cannot.
    """
    assert key.part == ("" if part is None else part.digest), "the key names the part"
    folder = root / key.folder_name
    meta = sound_meta(folder)
    if meta is None:
        with exclusive_lock(folder):
            meta = sound_meta(folder)
            if meta is None:
                # What is there is damaged, or of an older format; a rename onto a folder that is not empty would fail.
                shutil.rmtree(folder, ignore_errors=True)
                with atomic_folder(folder) as temporary:
                    build(temporary, key, loader, make_teacher(), on_progress, part)
                meta = sound_meta(folder)
    if meta is None:
        raise DataError(f"{folder}: the teacher's taps were written but cannot be read back. Is the disk sound?")
    return TeacherCache(folder, meta, loader.device, make_head, part)


def sound_meta(folder: Path) -> dict[str, Any] | None:
    """Return the meta data of a cache whose every file has its size and checksum; None for any other."""
    meta = read_meta(folder)
    if meta is None or meta.get("version") != FORMAT_VERSION:
        return None
    for name, about in meta["arrays"].items():
        path = folder / f"{name}.npy"
        try:
            if path.stat().st_size != about["bytes"] or checksum(path) != about["checksum"]:
                return None
        except OSError:
            return None
    return meta
