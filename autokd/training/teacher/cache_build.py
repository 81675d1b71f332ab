"""Writes a teacher's cache: one pass of the teacher over the views of a plan, or over a part of them."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autokd.data.orientation import turned
from autokd.detector_outputs import PYRAMID_TAP, DetectorOutputs
from autokd.detectors import Detector
from autokd.errors import NonFiniteError
from autokd.files import META_FILE, write_json_atomically
from autokd.training.loader import Loader, Pairs
from autokd.training.teacher.cache_bytes import array_forms, cache_bytes, require_room, reserve
from autokd.training.teacher.cache_key import FORMAT_VERSION, CacheKey, stored_taps
from autokd.training.teacher.part import Part

LEVEL_PREFIX = "level."
CHECKED_BLOCKS, BLOCK_BYTES = 512, 1 << 16
"""Number and size of the evenly spaced blocks that a checksum reads: all of a small file, 32 MiB of a large one."""

Progress = Callable[[int, int], None]


@torch.no_grad()
def build(
    folder: Path, key: CacheKey, loader: Loader, teacher: Detector, on_progress: Progress | None, part: Part | None
) -> None:
    """Run the teacher over the views, and write arrays and meta data.

    Args:
        folder: an empty folder.
        key: taps and number format.
        loader: the images in their views.
        teacher: the teacher.
        on_progress: called with (batches done, batches in all); None: progress is not reported.
        part: the views; None: all of the loader's plan.

    Raises:
        DataError: if the disk is too small.
        NonFiniteError: if a tap holds a value that its number format cannot.
    """
    began_s = time.monotonic()
    teacher = teacher.to(loader.device).eval()
    plan = loader.plan
    assert plan.num_views is not None, "endless views are not cached"
    if part is None:
        leading: tuple[int, ...] = (plan.num_images, plan.num_views)
        pairs = [(image, view) for image in range(plan.num_images) for view in range(plan.num_views)]
    else:
        leading, pairs = (len(part),), part.pairs()
    arrays: dict[str, np.memmap] = {}
    strides: dict[str, int] = {}
    batches = loader.batches(pairs)
    for done, batch in enumerate(loader.of_pairs(batches), start=1):
        outputs = teacher(batch.images_BCHW, taps=key.taps)
        taps = {name: in_one_form(tap, name, batch.is_turned) for name, tap in wanted_arrays(outputs, key.taps).items()}
        input_size_px = turned(outputs.input_size_px) if batch.is_turned else outputs.input_size_px
        # Shapes of taps are known only after the first batch.
        if not arrays:
            strides = {level: int(stride) for level, stride in outputs.strides.items()}
            arrays = _allocate(folder, taps, leading, key)
        rows = rows_of(batch.pairs, part)
        for name, tap in taps.items():
            arrays[name][rows] = _narrowed(tap, name, arrays[name].dtype)
        if on_progress is not None:
            on_progress(done, len(batches))
    for array in arrays.values():
        array.flush()
    files = {name: folder / f"{name}.npy" for name in arrays}
    # Last, since a folder counts as a cache by its meta data.
    meta = {
        "version": FORMAT_VERSION,
        "build_s": round(time.monotonic() - began_s, 3),
        "strides": strides,
        "input_size_px": list(input_size_px),
        "arrays": {n: {"bytes": p.stat().st_size, "checksum": checksum(p)} for n, p in files.items()},
    }
    write_json_atomically(folder / META_FILE, meta)


def rows_of(pairs: Pairs, part: Part | None) -> Any:
    """Return the index of the files' rows of some views."""
    if part is not None:
        return part.rows(pairs)
    images = np.fromiter((image for image, _ in pairs), dtype=np.int64, count=len(pairs))
    views = np.fromiter((view for _, view in pairs), dtype=np.int64, count=len(pairs))
    return images, views


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


def _allocate(
    folder: Path, taps: Mapping[str, Tensor], leading: tuple[int, ...], key: CacheKey
) -> dict[str, np.memmap]:
    """Create the files; a disk that is too small is an error now, and not a crash (SIGBUS) at some later write."""
    forms = array_forms({name: tuple(tap.shape[1:]) for name, tap in taps.items()}, key.dtype)
    views = f"{leading[0]} images in {leading[1]} views" if len(leading) > 1 else f"{leading[0]} views of single images"
    require_room(
        folder.parent,
        cache_bytes(forms, leading),
        f"the teacher's taps of {views}",
        "Free some space, move the cache (--cache-dir), or lower num_views or image_size_px.",
    )
    arrays: dict[str, np.memmap] = {}
    for name, form in forms.items():
        path, shape = folder / f"{name}.npy", (*leading, *form.shape)
        arrays[name] = np.lib.format.open_memmap(path, mode="w+", dtype=key.dtype_of(name), shape=shape)
        reserve(path, form.file_bytes(leading))
    return arrays


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
