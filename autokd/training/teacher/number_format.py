"""Number formats of stored taps: float16, int8 with a scale for each channel of each view, float32 for boxes.

An int8 value is the tap divided by its channel's scale, rounded; the scale is the channel's greatest absolute value in
the view, divided by 127. So the error is at most half a scale, 1/254 of that value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from autokd.errors import NonFiniteError
from autokd.training.teacher.cache_bytes import scales_shape
from autokd.training.teacher.cache_key import SCALES, dtype_of

_GREATEST_INT8 = 127


def narrowed(taps: Mapping[str, Tensor], dtype: str) -> dict[str, np.ndarray]:
    """Return the arrays that store taps, all of whose values must be finite in their format.

    Args:
        taps: array's name -> tap of a batch, images first.
        dtype: number format of all taps but boxes.

    Raises:
        NonFiniteError: if one is not; the message names it.
    """
    found: dict[str, np.ndarray] = {}
    for name, tap in taps.items():
        own = dtype_of(name, dtype)
        # Checked after the conversion: beyond 65504 float16 has infinity.
        narrow = tap.half() if own == np.float16 else tap.float()
        if not bool(torch.isfinite(narrow).all()):
            greatest = float(tap.abs().max())
            raise NonFiniteError(
                f"the teacher's {name} reaches {greatest:g}, which {own} cannot hold (at most "
                f"{np.finfo(np.float32 if own == np.int8 else own).max:g}). Is the teacher's checkpoint sound?"
            )
        if own == np.int8:
            narrow, scales = _quantized(name, narrow)
            found[name + SCALES] = scales.cpu().numpy()
        found[name] = narrow.cpu().numpy()
    return found


def _quantized(name: str, tap: Tensor) -> tuple[Tensor, Tensor]:
    shape = scales_shape(name, tuple(tap.shape[1:]))
    axes = [axis for axis, length in enumerate(shape, start=1) if length == 1 and tap.shape[axis] > 1]
    greatest = tap.abs().amax(dim=axes, keepdim=True) if axes else tap.abs()
    scales = torch.where(greatest > 0, greatest / _GREATEST_INT8, 1.0).reshape(-1, *shape)
    return torch.round(tap / scales).clamp(-_GREATEST_INT8, _GREATEST_INT8).to(torch.int8), scales


def widened(name: str, read: Callable[[str], np.ndarray], device: torch.device) -> Tensor:
    """Return a stored tap as float32.

    Args:
        name: array's name.
        read: returns the rows of an array by its name.
        device: device of the result.
    """
    values = read(name)
    tap = torch.from_numpy(values).to(device).float()
    if values.dtype == np.int8:
        tap *= torch.from_numpy(read(name + SCALES)).to(device)
    return tap
