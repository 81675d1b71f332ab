"""Random numbers by name: every stream depends on a seed and its own name alone.

Candidates are compared under common random numbers: the same initial weights, the same order of images, the
same draws inside the detector's losses. So no stream may depend on how much another one has drawn; building a
distiller, for one, must not change the student's weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from autokd.jobs import RecipeName


def stream_seed(seed: int, *names: str | int) -> int:
    """Return 63 bits that depend on ``seed`` and ``names`` alone, the same on every machine."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def order_seed(recipe: RecipeName, seed: int) -> int:
    """Return the seed by which a job's training orders its images.

    A proxy's is not the job's seed itself, by which its warm start was trained: that order of images would come again.

    Args:
        recipe: name of the job's recipe.
        seed: the job's seed.
    """
    return stream_seed(seed, "proxy") if recipe == "proxy" else seed


def seed_stream(device: torch.device, seed: int, *names: str | int) -> None:
    """Set torch's default generators (the CPU's, and ``device``'s) to the start of a stream.

    Much cheaper than ``torch.manual_seed``, which visits every kind of device, so that a step can afford it.
    """
    value = stream_seed(seed, *names)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.manual_seed(value)


@contextmanager
def random_stream(device: torch.device, seed: int, *names: str | int) -> Iterator[None]:
    """Draw from a stream inside the block; torch's default generators have their old state afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        seed_stream(device, seed, *names)
        yield
