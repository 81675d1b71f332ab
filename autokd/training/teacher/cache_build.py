"""Writes a teacher's cache: passes of the teacher over the views of a plan, or over a part of them.

The folder that is filled has a name that every process knows. All processes that need the cache fill it together, a
shard of consecutive rows at a time, and one that was killed leaves rows that the next ones need not compute. A batch
has the same images whoever computes it, so the values do not depend on who did.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autokd.data.orientation import turned
from autokd.detector_outputs import PYRAMID_TAP, DetectorOutputs
from autokd.detectors import Detector
from autokd.files import META_FILE, publish_folder, read_meta
from autokd.locks import exclusive_lock, lock_if_free
from autokd.training.loader import Batch, Loader
from autokd.training.teacher.cache_bytes import array_forms, cache_bytes, require_room
from autokd.training.teacher.cache_files import CacheFiles, Layout, Rows, pairs_of, rows_of, write_meta
from autokd.training.teacher.cache_key import LEVEL_PREFIX, CacheKey, stored_taps
from autokd.training.teacher.number_format import narrowed
from autokd.training.teacher.part import Part

SHARD_BATCHES = 16
"""Batches that a process computes before it looks for the next shard that nobody works on."""
_LOCKS_FOLDER = "locks"

Progress = Callable[[int, int], None]


class CacheBuild:
    """The work of one process on a cache that is being filled, or whose damaged rows are computed again."""

    def __init__(
        self,
        key: CacheKey,
        loader: Loader,
        make_teacher: Callable[[], Detector],
        part: Part | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        """Compute nothing yet.

        Args:
            key: taps and number format.
            loader: the images in their views.
            make_teacher: returns the teacher; called when the first batch is computed.
            part: the views; None: all of the loader's plan.
            on_progress: called with (batches done, batches in all); None: progress is not reported.
        """
        assert loader.plan.num_views is not None, "endless views are not cached"
        self._key, self._loader, self._part, self._on_progress = key, loader, part, on_progress
        self._make_teacher = make_teacher
        self._teacher: Detector | None = None
        self._num_views = loader.plan.num_views
        self._leading = (loader.plan.num_images, self._num_views) if part is None else (len(part),)
        self._seconds, self._num_computed = 0.0, 0

    @property
    def _num_rows(self) -> int:
        return int(np.prod(self._leading))

    def begin(self, folder: Path, make_room: Callable[[int], None]) -> None:
        """Make the files, unless they are there already; under the lock of the cache.

        Args:
            folder: folder to fill.
            make_room: called with the bytes of all files before they are made.

        Raises:
            DataError: if the disk is too small.
        """
        if Layout.read(folder) is not None:
            return
        shutil.rmtree(folder, ignore_errors=True)  # killed while it was made, or of another format
        [batch] = self._loader.of_pairs([self._pairs(self._batches()[0])])
        outputs, taps = self._outputs(batch)
        forms = array_forms({name: tuple(tap.shape[1:]) for name, tap in taps.items()}, self._key.dtype)
        strides = {level: int(stride) for level, stride in outputs.strides.items()}
        needed = cache_bytes(forms, self._leading)
        make_room(needed)
        require_room(
            folder.parent,
            needed,
            f"the teacher's taps of {_view_words(self._leading)}",
            "Free some space, move the cache (--cache-dir), or lower num_views or image_size_px.",
        )
        folder.mkdir(parents=True)
        try:
            size_px = turned(outputs.input_size_px) if batch.is_turned else outputs.input_size_px
            Layout(self._leading, strides, size_px, forms).write(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def fill(self, folder: Path) -> None:
        """Compute every row that no process has computed; return when all are there."""
        layout = Layout.read(folder)
        if layout is None:  # another process has finished and renamed it
            return
        files = CacheFiles(folder, layout, "r+")
        batches = self._batches()
        shards = [batches[first : first + SHARD_BATCHES] for first in range(0, len(batches), SHARD_BATCHES)]
        for waits in (False, True):  # in the second round, for those that others had begun: they may have died
            for number, shard in enumerate(shards):
                place = folder / _LOCKS_FOLDER / str(number)
                with exclusive_lock(place) if waits else lock_if_free(place) as is_free:
                    if waits or is_free:
                        self._fill_shard(files, shard, number * SHARD_BATCHES, len(batches))

    def finish(self, folder: Path, path: Path) -> None:
        """Declare a filled folder a cache and rename it; under the lock of the cache."""
        shutil.rmtree(folder / _LOCKS_FOLDER, ignore_errors=True)
        one_s = self._seconds / self._num_computed if self._num_computed else 0.0
        write_meta(folder, one_s * self._num_rows)
        publish_folder(folder, path)

    def compute_again(self, folder: Path, rows: Rows) -> None:
        """Write rows of a finished cache anew, in the batches in which they were computed first.

        Raises:
            OSError: if the files cannot be written.
        """
        layout = Layout.read(folder)
        assert layout is not None, "the caller has opened it"
        files = CacheFiles(folder, layout, "r+")
        with exclusive_lock(folder):
            build_s = float((read_meta(folder) or {}).get("build_s", 0.0))
            spoilt = [batch for batch in self._batches() if np.isin(batch, rows).any()]
            # Another process may have computed them meanwhile.
            self._compute(files, [batch for batch in spoilt if len(files.damaged(batch, list(layout.forms)))])
            files.flush()
            (folder / META_FILE).unlink(missing_ok=True)  # in between it is no cache: its digest is that of before
            write_meta(folder, build_s)

    def _fill_shard(self, files: CacheFiles, shard: Sequence[Rows], first: int, total: int) -> None:
        wanted = [batch for batch in shard if files.missing(batch)]
        if not wanted:
            return
        began = first + len(shard) - len(wanted)
        self._compute(files, wanted, lambda done: self._report(began + done, total))
        files.flush()

    def _report(self, done: int, total: int) -> None:
        if self._on_progress is not None:
            self._on_progress(done, total)

    def _compute(
        self, files: CacheFiles, batches: Sequence[Rows], on_done: Callable[[int], None] = lambda done: None
    ) -> None:
        began_s = time.monotonic()
        loaded = self._loader.of_pairs([self._pairs(rows) for rows in batches])
        for done, (rows, batch) in enumerate(zip(batches, loaded, strict=True), start=1):
            files.write(rows, narrowed(self._outputs(batch)[1], self._key.dtype))
            self._num_computed += len(rows)
            on_done(done)
        self._seconds += time.monotonic() - began_s

    @torch.no_grad()
    def _outputs(self, batch: Batch) -> tuple[DetectorOutputs, dict[str, Tensor]]:
        if self._teacher is None:
            self._teacher = self._make_teacher().to(self._loader.device).eval()
        outputs = self._teacher(batch.images_BCHW, taps=self._key.taps)
        taps = wanted_arrays(outputs, self._key.taps)
        return outputs, {name: in_one_form(tap, name, batch.is_turned) for name, tap in taps.items()}

    def _pairs(self, rows: Rows) -> list[tuple[int, int]]:
        return pairs_of(rows, self._part, self._num_views)

    def _batches(self) -> list[Rows]:
        pairs = self._pairs(np.arange(self._num_rows, dtype=np.int64))
        return [rows_of(batch, self._part, self._num_views) for batch in self._loader.batches(pairs)]


def wanted_arrays(outputs: DetectorOutputs, taps: Sequence[str]) -> dict[str, Tensor]:
    """Return what a cache stores of a batch.

    Args:
        outputs: the teacher's outputs.
        taps: names of the taps to store.

    Returns:
        Array's name ("level.p3", "class_logits", ...) -> the tap of the batch, images first.
    """
    found: dict[str, Tensor] = {}
    if PYRAMID_TAP in taps:
        found |= {LEVEL_PREFIX + level: map_BCHW for level, map_BCHW in outputs.pyramid.items()}
    for name in stored_taps(taps):
        if name != PYRAMID_TAP and (tap := getattr(outputs, name)) is not None:
            found[name] = tap
    return found


def in_one_form(tap: Tensor, array: str, is_turned: bool) -> Tensor:
    """Return a tap of a batch with the shape that an array has for all images.

    A map of the turned frame has as many cells, in rows of another length: its numbers are kept in their order, in the
    shape of the other's, and ``TeacherCache.read`` gives them their own shape again.

    Args:
        tap: the tap, (B, C, H, W) of a level.
        array: name of the array.
        is_turned: whether the batch is of the turned frame.
    """
    if not is_turned or not array.startswith(LEVEL_PREFIX):
        return tap
    batch, channels, height, width = tap.shape
    return tap.reshape(batch, channels, width, height)


def _view_words(leading: tuple[int, ...]) -> str:
    if len(leading) > 1:
        return f"{leading[0]} images in {leading[1]} views"
    return f"{leading[0]} views of single images"
