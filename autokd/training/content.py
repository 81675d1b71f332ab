"""Files by content: a key from what a thing was made of, whole folders or none, one maker at a time.

A folder under the cache is written under a temporary name and then renamed, so that an interrupted write is
never taken for a whole one. Of several processes that want the same folder, one makes it and the others wait
(a lock, where the system has one); where they cannot wait for each other, the first rename wins.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

META_FILE = "meta.json"
ABANDONED_S = 24 * 3600


def digest_of(**parts: Any) -> str:
    """16 hexadecimal digits of JSON-like ``parts``, equal for equal parts, whatever their order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits of names, types, shapes and values of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock of ``path`` (a file beside it) inside the block; the system frees it if the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder; at the end of the block rename it to ``path``.

    If another process was first, its folder stays and ours is dropped. If the block raises, nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of ``path``: parts in which nothing was written for a day."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        with contextlib.suppress(OSError):
            newest = max(file.stat().st_mtime for file in (part, *part.rglob("*")))
            if time.time() - newest > ABANDONED_S:
                shutil.rmtree(part, ignore_errors=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it over ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as JSON, whole or not at all."""
    write_whole(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())


def read_meta(folder: Path) -> dict[str, Any] | None:
    """The folder's ``meta.json``; None where the folder, the file or its sense is missing."""
    try:
        data = json.loads((folder / META_FILE).read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Save a state dict on the CPU, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        torch.save({name: tensor.detach().cpu() for name, tensor in state.items()}, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Load a state dict; code in the file is never executed."""
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
