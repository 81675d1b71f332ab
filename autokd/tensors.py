"""Operations on tensors that several packages need."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")

_HALF_PRECISION = (torch.float16, torch.bfloat16)


def full_precision(value: Value) -> Value:
    """Return a half-precision tensor as float32, and anything else (float64, integers, None) as it is.

    Sums over many cells overflow in float16 and lose their small summands in bfloat16: what autocast left in half
    precision is widened before it is reduced.
    """
    if isinstance(value, Tensor) and value.dtype in _HALF_PRECISION:
        widened: Any = value.float()
        return widened  # type: ignore[no-any-return]
    return value


def computes_asynchronously(device: torch.device) -> bool:
    """Return whether a device computes beside the host, so that the host waits wherever it reads a number of it.

    Args:
        device: any device of torch.
    """
    return device.type not in ("cpu", "meta")
