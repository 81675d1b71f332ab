"""State of a distiller beside its weights as a tensor, since averaged models of mmengine hold tensors only."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LEAST_BYTES = 4096
"""Sizes are powers of two from here on. An averaged model copies a tensor into one of the same size, so the size must
not change with every byte of the state."""


def as_tensor(state: Any) -> Tensor:
    """Return (N,) bytes: eight with the length of the state, the state as torch saves it, zeros to a power of two."""
    file = io.BytesIO()
    torch.save(state, file)
    content = file.getbuffer().nbytes.to_bytes(8, "little") + file.getvalue()
    size = max(_LEAST_BYTES, 1 << (len(content) - 1).bit_length())
    return torch.from_numpy(np.frombuffer(content.ljust(size, b"\0"), dtype=np.uint8).copy())


def from_tensor(bytes_N: Tensor) -> Any:
    """Return the argument of ``as_tensor``; tensors and plain values only, so that no code is run."""
    content = bytes_N.cpu().numpy().tobytes()
    length = int.from_bytes(content[:8], "little")
    return torch.load(io.BytesIO(content[8 : 8 + length]), weights_only=True)
