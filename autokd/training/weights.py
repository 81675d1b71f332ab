"""Weights as files, and their digest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from autokd.files import atomic_file, digest_of_blocks, write_json_atomically


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return 16 hexadecimal digits of the names, types, shapes and values of a state dict, in any order."""
    return digest_of_blocks(_blocks(state))


def _blocks(state: Mapping[str, Tensor]) -> Iterator[bytes]:
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        yield f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode()
        # As bytes, since NumPy has no bfloat16; flat, since a scalar cannot be viewed as another type.
        yield tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Save a state dict on the CPU, whole or not at all."""
    with atomic_file(path) as temporary:
        torch.save({name: tensor.detach().cpu() for name, tensor in state.items()}, temporary)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Load a state dict onto the CPU; code in the file is never executed."""
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def load_sound_weights(path: Path, digest: str) -> dict[str, Tensor] | None:
    """Load a state dict onto the CPU if it is the one that was saved; None if it is missing, cut short or changed.

    Args:
        path: file of weights.
        digest: ``weights_digest`` of what was saved.
    """
    try:
        state = load_weights(path)
        return state if weights_digest(state) == digest else None
    except Exception:  # noqa: BLE001 - damaged zip archives and pickles raise almost anything
        return None


def save_with_digest(path: Path, state: Mapping[str, Tensor]) -> None:
    """Save a state dict, and beside it the digest by which ``load_with_digest`` knows it."""
    save_weights(path, state)
    write_json_atomically(path.with_suffix(".json"), {"digest": weights_digest(state)})


def load_with_digest(path: Path) -> dict[str, Tensor] | None:
    """Load what ``save_with_digest`` saved; None if it is missing, cut short or changed."""
    try:
        about = json.loads(path.with_suffix(".json").read_text())
        return load_sound_weights(path, str(about["digest"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
