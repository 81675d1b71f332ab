"""Memory of this process or of its card, and how much there is."""

from __future__ import annotations

import os
import resource
import sys

import torch


def peak_memory(device: torch.device) -> int:
    """Return the greatest memory so far, in bytes: of torch's tensors on a card, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def total_memory(device: torch.device) -> int:
    """Return the memory of the card, or of the machine, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
