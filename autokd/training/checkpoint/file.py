"""The file of a checkpoint: a header with key, versions and checksum, then a training's state as data.

A file appears whole or not at all, and is read only if key, versions and checksum fit. It holds tensors and plain
values; code in it is never executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from autokd.errors import CheckpointError
from autokd.files import atomic_file
from autokd.jobs import TRAINING_VERSION

FORMAT_VERSION = 1
"""Version of the file's layout and of the names in it."""

_KIND = "AutoKD checkpoint"
_HEADER_BYTES = 512
"""Fixed, so that the header, which holds the checksum of what follows, is written last."""


def write_checkpoint(path: Path, key: str, state: Mapping[str, Any]) -> None:
    """Replace a checkpoint, whole or not at all.

    Args:
        path: path of the file; folders above it are made.
        key: digest of everything that the training depends on.
        state: tensors on the CPU, and plain values.

    Raises:
        OSError: if the file cannot be written.
    """
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(_HEADER_BYTES))
        content = _Hashed(file)
        torch.save(dict(state), cast("IO[bytes]", content))
        file.seek(0)
        file.write(_header(key, content.digest.hexdigest()))


def read_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """Return the state in a file; None if there is no file.

    Args:
        path: path of the file.
        key: key that it must have.

    Raises:
        CheckpointError: if the file cannot be read, is damaged, or belongs to another training or version.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). Correct its permissions.") from error
    try:
        header = json.loads(content[:_HEADER_BYTES])
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("kind") != _KIND:
        raise CheckpointError(f"{path}: no checkpoint of AutoKD, or half of one. Remove it.")
    versions = header.get("format"), header.get("training_version")
    if versions != (FORMAT_VERSION, TRAINING_VERSION):
        raise CheckpointError(
            f"{path}: written by another version of AutoKD (format and training {versions}; this one reads "
            f"{(FORMAT_VERSION, TRAINING_VERSION)}). Remove it, or go on with the AutoKD that wrote it."
        )
    if header.get("key") != key:
        raise CheckpointError(
            f"{path}: belongs to another training (key {header.get('key')}; this one has {key}): its distiller, "
            "recipe, seed, data or detectors differ. Remove it."
        )
    payload = memoryview(content)[_HEADER_BYTES:]
    if hashlib.sha256(payload).hexdigest() != header.get("sha256"):
        raise CheckpointError(f"{path}: its content does not fit its checksum: it is damaged. Remove it.")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch raises at a pickle that is no state
        raise CheckpointError(f"{path}: holds something else than data ({error}). Remove it.") from error
    return state


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes had begun to write in place of ``path``."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        with contextlib.suppress(OSError):
            part.unlink()


def _header(key: str, sha256: str) -> bytes:
    about = {
        "kind": _KIND,
        "format": FORMAT_VERSION,
        "training_version": TRAINING_VERSION,
        "key": key,
        "sha256": sha256,
    }
    text = json.dumps(about).encode()
    assert len(text) < _HEADER_BYTES, "keys are digests"
    return text.ljust(_HEADER_BYTES - 1) + b"\n"


class _Hashed:
    """A file whose checksum is taken while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, block: Any) -> int:
        self.digest.update(block)
        return self._file.write(block)

    def flush(self) -> None:
        self._file.flush()
