"""The teacher's taps, computed once for a plan of replayable views and shared by all workers of a machine.

One .npy file a tap, memory-mapped: (N, V, C, H, W) for a level of the pyramid, (N, V, A, K) for class logits,
(N, V, A, 4) for boxes, (N, V, A, 4, E) for edge logits. All are float16 but the boxes: its 11 bits would round pixels
beyond 2048 to even ones, and edges of small boxes to sixteenths. The folder's name is a digest of all that the taps
depend on (``cache_key.py``). A frozen head is the same for all images: it is held beside the files.

Legend: N images, V views, B images of a batch, C channels, H x W cells, A candidate boxes, K classes, E bins.
"""

from __future__ import annotations

import math
import shutil
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autokd.data import ViewPlan
from autokd.detector_outputs import PYRAMID_TAP, TAPS, CrossHead, DetectorOutputs
from autokd.detectors import Detector
from autokd.errors import DataError, NonFiniteError
from autokd.files import META_FILE, atomic_folder, exclusive_lock, read_meta, write_json_atomically
from autokd.training.loader import Batch, Loader, Pairs, chunks, num_chunks
from autokd.training.teacher.cache_key import FORMAT_VERSION, HELD_TAP, STORED_TAPS, CacheKey, stored_taps

LEVEL_PREFIX = "level."
CHECKED_BLOCKS, BLOCK_BYTES = 512, 1 << 16
"""Number and size of the evenly spaced blocks that a checksum reads: all of a small file, 32 MiB of a large one."""

_READ_IMAGES = 256
"""Images read at a time by ``image_features``, so that a large map is never in memory as a whole."""

Progress = Callable[[int, int], None]


class TeacherCache:
    """Taps of one data set under one plan, open for reading."""

    def __init__(
        self,
        folder: Path,
        meta: Mapping[str, Any],
        device: torch.device,
        make_head: Callable[[], CrossHead | None] | None = None,
    ) -> None:
        """Open the files; nothing is read yet.

        Args:
            folder: folder of a whole and sound cache.
            meta: its meta data (``sound_meta``).
            device: device of the taps that are read.
            make_head: returns the teacher's frozen head. It is called at the first read that asks for the head, since
                the teacher must be built for it.
        """
        self.folder = folder
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
        return self.read(batch.pairs)

    def image_features(self) -> np.ndarray:
        """Return (N, C) float64: the mean of the pyramid's coarsest level over cells and views."""
        level = max(self._strides, key=lambda name: self._strides[name])
        maps_NVCHW = self._arrays[LEVEL_PREFIX + level]
        starts = range(0, len(maps_NVCHW), _READ_IMAGES)
        parts = (maps_NVCHW[start : start + _READ_IMAGES] for start in starts)
        return np.concatenate([part.mean(axis=(1, 3, 4), dtype=np.float64) for part in parts])

    def only(self, taps: Collection[str]) -> TapsReader:
        """Return a reader of these taps alone, so that a step does not fetch what its distiller does not read."""
        return TapsReader(self, taps)

    def read(self, pairs: Pairs, taps: Collection[str] = TAPS) -> DetectorOutputs:
        """Return cached taps, as float32 on the device.

        Args:
            pairs: (image index, view number) of each image.
            taps: names of the taps; the pyramid is read always.
        """
        images = np.fromiter((image for image, _ in pairs), dtype=np.int64, count=len(pairs))
        views = np.fromiter((view for _, view in pairs), dtype=np.int64, count=len(pairs))

        def tap(name: str) -> Tensor | None:
            if name not in self._arrays or (name in TAPS and name not in taps):
                return None
            return torch.from_numpy(self._arrays[name][images, views]).to(self._device).float()

        stored: dict[str, Any] = {name: tap(name) for name in STORED_TAPS if name != PYRAMID_TAP}
        pyramid = {level: tap(LEVEL_PREFIX + level) for level in self._strides}
        return DetectorOutputs(
            pyramid={level: map_BCHW for level, map_BCHW in pyramid.items() if map_BCHW is not None},
            strides=self._strides,
            image_size_px=self._input_size_px,
            head=self.head if HELD_TAP in taps else None,
            **stored,
        )


@dataclass(frozen=True)
class TapsReader:
    """Reads some taps of a cache."""

    cache: TeacherCache
    taps: Collection[str]

    def __call__(self, batch: Batch) -> DetectorOutputs:
        return self.cache.read(batch.pairs, self.taps)


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
) -> TeacherCache:
    """Open a cache; build it first if it is missing, cut short or damaged. One process builds, the others wait.

    Args:
        root: folder of all caches of teachers.
        key: everything that the taps depend on.
        loader: the images in their views.
        make_teacher: returns the teacher; called only to build.
        on_progress: called with (batches done, batches in all).
        make_head: returns the teacher's head, if terms read the tap ``head`` (see ``TeacherCache``).

    Raises:
        DataError: if the disk is too small, or the files cannot be read back.
        NonFiniteError: if a tap holds a value that its number format cannot.
    """
    folder = root / key.folder_name
    meta = sound_meta(folder)
    if meta is None:
        with exclusive_lock(folder):
            meta = sound_meta(folder)
            if meta is None:
                # What is there is damaged, or of an older format; a rename onto a folder that is not empty would fail.
                shutil.rmtree(folder, ignore_errors=True)
                with atomic_folder(folder) as temporary:
                    _build(temporary, key, loader, make_teacher(), on_progress)
                meta = sound_meta(folder)
    if meta is None:
        raise DataError(f"{folder}: the teacher's taps were written but cannot be read back. Is the disk sound?")
    return TeacherCache(folder, meta, loader.device, make_head)


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


@torch.no_grad()
def _build(folder: Path, key: CacheKey, loader: Loader, teacher: Detector, on_progress: Progress | None) -> None:
    """Run the teacher over every view of the plan, and write arrays and meta data to ``folder``."""
    teacher = teacher.to(loader.device).eval()
    plan = loader.plan
    assert plan.num_views is not None, "endless views are not cached"
    pairs = [(image, view) for image in range(plan.num_images) for view in range(plan.num_views)]
    arrays: dict[str, np.memmap] = {}
    strides: dict[str, int] = {}
    total = num_chunks(len(pairs), loader.batch_size)
    for done, batch in enumerate(loader.of_pairs(chunks(pairs, loader.batch_size)), start=1):
        outputs = teacher(batch.images_BCHW, taps=key.taps)
        taps = _wanted(outputs, key.taps)
        # Shapes of taps are known only after the first batch.
        if not arrays:
            strides = {level: int(stride) for level, stride in outputs.strides.items()}
            arrays = _allocate(folder, taps, plan, key)
        images, views = (list(column) for column in zip(*batch.pairs))
        for name, tap in taps.items():
            arrays[name][images, views] = _narrowed(tap, name, arrays[name].dtype)
        if on_progress is not None:
            on_progress(done, total)
    for array in arrays.values():
        array.flush()
    files = {name: folder / f"{name}.npy" for name in arrays}
    # Last, since a folder counts as a cache by its meta data.
    meta = {
        "version": FORMAT_VERSION,
        "strides": strides,
        "input_size_px": list(outputs.input_size_px),
        "arrays": {n: {"bytes": p.stat().st_size, "checksum": checksum(p)} for n, p in files.items()},
    }
    write_json_atomically(folder / META_FILE, meta)


def _wanted(outputs: DetectorOutputs, taps: Sequence[str]) -> dict[str, Tensor]:
    """Return the arrays to store, by name."""
    found: dict[str, Tensor] = {}
    if PYRAMID_TAP in taps:
        found |= {LEVEL_PREFIX + level: map_BCHW for level, map_BCHW in outputs.pyramid.items()}
    for name in stored_taps(taps):
        if name != PYRAMID_TAP and (tap := getattr(outputs, name)) is not None:
            found[name] = tap
    return found


def _allocate(folder: Path, taps: Mapping[str, Tensor], plan: ViewPlan, key: CacheKey) -> dict[str, np.memmap]:
    """Create the files; a disk that is too small is an error now, and not a crash (SIGBUS) at some later write."""
    shapes = {name: (plan.num_images, plan.num_views, *tap.shape[1:]) for name, tap in taps.items()}
    needed = sum(key.dtype_of(name).itemsize * math.prod(shape) for name, shape in shapes.items())
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        raise DataError(
            f"{folder.parent}: the teacher's taps of {plan.num_images} images in {plan.num_views} views need "
            f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free. Free some space, move the cache, or "
            "lower num_views or image_size_px."
        )
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=key.dtype_of(name), shape=shape)
        for name, shape in shapes.items()
    }


def _narrowed(tap: Tensor, name: str, dtype: np.dtype[Any]) -> np.ndarray:
    """Return a tap in the number format of its file, in which all values must be finite."""
    # Checked after the conversion: beyond 65504 float16 has infinity.
    narrow = tap.half() if dtype == np.float16 else tap.float()
    if not bool(torch.isfinite(narrow).all()):
        greatest = float(tap.abs().max())
        raise NonFiniteError(
            f"the teacher's {name} reaches {greatest:g}, which {dtype} cannot hold (at most "
            f"{np.finfo(dtype).max:g}). Is the teacher's checkpoint sound?"
        )
    return narrow.cpu().numpy()


def checksum(path: Path) -> int:
    """Return the CRC-32 of evenly spaced blocks of a file, first and last included.

    Files were renamed when whole and are opened by every worker: the check must find a damaged or truncated file in
    milliseconds, and need not find every flipped bit of gigabytes.
    """
    size = path.stat().st_size
    num_blocks = min(CHECKED_BLOCKS, max(1, math.ceil(size / BLOCK_BYTES)))
    value = 0
    with path.open("rb") as file:
        for i in range(num_blocks):
            file.seek((size - min(size, BLOCK_BYTES)) * i // max(num_blocks - 1, 1))
            value = zlib.crc32(file.read(BLOCK_BYTES), value)
    return value
