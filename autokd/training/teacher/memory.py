"""A teacher's taps in the memory of one process: computed when a view is first shown, read when it comes again.

Values are kept in half precision (boxes in float32) on the device of the batches. The first training on a worker runs
the teacher beside the student; the later ones read. All of them get the same numbers, those that are kept.

Legend: P views of a part, B images of a batch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from autokd.data.orientation import turned
from autokd.detector_outputs import PYRAMID_TAP, CrossHead, DetectorOutputs
from autokd.detectors import Detector
from autokd.errors import DataError, NonFiniteError
from autokd.training.loader import Batch
from autokd.training.teacher.cache_build import in_one_form, wanted_arrays
from autokd.training.teacher.cache_key import HELD_TAP, LEVEL_PREFIX, dtype_of, stored_taps
from autokd.training.teacher.part import Part


class TapsInMemory:
    """The taps of the views of one part, as they become known."""

    def __init__(self, teacher: Detector, taps: Collection[str], part: Part, head: CrossHead | None = None) -> None:
        """Keep nothing yet.

        Args:
            teacher: the teacher, on the batches' device and frozen.
            taps: names of the taps to keep.
            part: the views.
            head: the teacher's own head, cut in two, if terms read it.
        """
        self._teacher, self._part, self._head = teacher.eval(), part, head
        self.taps = frozenset(taps)
        """Names of the taps that are asked for, the frozen head among them."""
        self._taps = stored_taps(taps)
        self._is_known_P = torch.zeros(len(part), dtype=torch.bool)
        self._arrays: dict[str, Tensor] = {}
        self._strides: dict[str, int] = {}
        self._input_size_px = (0, 0)

    def only(self, taps: Collection[str]) -> _SomeTaps:
        """Return a reader of these taps alone."""
        return _SomeTaps(self, taps)

    def __call__(self, batch: Batch) -> DetectorOutputs:
        """Return all kept taps of a batch, as float32."""
        return self.read(batch, self._taps)

    @torch.no_grad()
    def read(self, batch: Batch, taps: Collection[str]) -> DetectorOutputs:
        """Return kept taps of a batch, as float32; run the teacher on the images of views that are new.

        Args:
            batch: images and their views.
            taps: names of the taps.
        """
        rows_B = torch.from_numpy(self._part.rows(batch.pairs))
        is_new_B = ~self._is_known_P[rows_B]
        if bool(is_new_B.any()):
            self._keep(batch.images_BCHW[is_new_B.to(batch.images_BCHW.device)], rows_B[is_new_B], batch.is_turned)
        on_device_B = rows_B.to(batch.images_BCHW.device)
        found = {name: array[on_device_B].float() for name, array in self._arrays.items()}
        levels = [level for level in self._strides if LEVEL_PREFIX + level in found]
        return DetectorOutputs(
            pyramid={
                level: in_one_form(found[LEVEL_PREFIX + level], LEVEL_PREFIX + level, batch.is_turned)
                for level in levels
            },
            strides={level: self._strides[level] for level in levels},
            image_size_px=turned(self._input_size_px) if batch.is_turned else self._input_size_px,
            head=self._head if HELD_TAP in taps else None,
            **{name: found[name] for name in self._taps if name != PYRAMID_TAP and name in found and name in taps},  # type: ignore[arg-type]
        )

    def _keep(self, images_BCHW: Tensor, rows_B: Tensor, is_turned: bool) -> None:
        outputs = self._teacher(images_BCHW, taps=self._taps)
        taps = wanted_arrays(outputs, self._taps)
        wanted = {name: in_one_form(tap, name, is_turned) for name, tap in taps.items()}
        if not self._arrays:
            self._allocate(outputs, wanted, is_turned)
        for name, tap in wanted.items():
            kept = tap.to(self._arrays[name].dtype)
            if not bool(torch.isfinite(kept).all()):
                raise NonFiniteError(
                    f"the teacher's {name} reaches {float(tap.abs().max()):g}, which half precision cannot hold (at "
                    "most 65504). Is the teacher's checkpoint sound?"
                )
            self._arrays[name][rows_B.to(kept.device)] = kept
        self._is_known_P[rows_B] = True

    def _allocate(self, outputs: DetectorOutputs, wanted: dict[str, Tensor], is_turned: bool) -> None:
        device = next(iter(wanted.values())).device
        needed = sum(tap[0].numel() * _dtype(name).itemsize for name, tap in wanted.items()) * len(self._part)
        if needed > (free := free_memory(device)):
            place = "this machine" if device.type == "cpu" else "the GPU"
            raise DataError(
                f"teacher_outputs: memory needs {needed / 2**30:.2f} GiB for {len(self._part)} views, and "
                f"{free / 2**30:.2f} GiB of {place} are free. Take 'live' or 'disk', or lower images, subset or "
                "image_size_px of the recipe."
            )
        self._strides = {level: int(stride) for level, stride in outputs.strides.items()}
        self._input_size_px = turned(outputs.input_size_px) if is_turned else outputs.input_size_px
        self._arrays = {
            name: torch.empty((len(self._part), *tap.shape[1:]), dtype=_dtype(name), device=device)
            for name, tap in wanted.items()
        }


class _SomeTaps:
    """Reads some of the kept taps."""

    def __init__(self, kept: TapsInMemory, taps: Collection[str]) -> None:
        self._kept, self._taps = kept, taps

    def __call__(self, batch: Batch) -> DetectorOutputs:
        return self._kept.read(batch, self._taps)


def free_memory(device: torch.device) -> int:
    """Return the bytes that a process may still take: of a GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError, StopIteration, ValueError):
        # What files occupy in memory is given back at need; SC_AVPHYS_PAGES does not count it.
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _dtype(name: str) -> torch.dtype:
    return torch.float32 if dtype_of(name).name == "float32" else torch.float16
