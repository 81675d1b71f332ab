"""The number format in which the substitutes compute."""

from __future__ import annotations

import torch


def computed(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in float32, or in float64 if it is so already.

    torchvision's kernels lack bfloat16, and float16 on a CPU; callers copy the result back into their format.
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()
