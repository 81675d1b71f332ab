"""The name of the machine that a recorded number comes from."""

from __future__ import annotations

import platform
from pathlib import Path


def machine_name(device: str) -> str:
    """Return the processor, and with ``device`` "cuda" the card; never the name of the host."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    if device == "cuda":
        import torch

        return f"{torch.cuda.get_device_name()}, {model}"
    return f"{model}, one thread"
