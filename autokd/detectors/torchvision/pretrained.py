"""torchvision's pretrained weights by name: which file they are, where it lies, how it gets there, what it asks for."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
from functools import cache
from pathlib import Path
from typing import Any, get_args

import torch
from torchvision.models import WeightsEnum, get_model_weights

from autokd.config import BUILDERS
from autokd.config.torchvision_section import BackboneName
from autokd.errors import DetectorError, one_of
from autokd.locks import exclusive_lock

WEIGHTS_DIR_VARIABLE = "AUTOKD_WEIGHTS_DIR"
"""Environment variable with a folder of torchvision's files."""
_DIGITS_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.pth$")
"""The first digits of the SHA-256, by which torchvision names its files."""


def entry_of(model: str, name: str) -> WeightsEnum:
    """Return torchvision's entry of weights.

    Args:
        model: name of a classifier or of a builder of detectors.
        name: name of the weights, or DEFAULT.

    Raises:
        DetectorError: if torchvision has no such weights for this model.
    """
    entries = get_model_weights(model)
    if name not in entries.__members__:
        raise DetectorError(
            f"weights: {one_of(name, entries.__members__, noun=f'{model} weights')} Give one of them, or a file."
        )
    return entries[name]


def entry_of_file(model: str, path: Path) -> WeightsEnum | None:
    """Return torchvision's entry whose file has this name; None for any other file."""
    return next((entry for entry in get_model_weights(model) if file_name(entry) == path.name), None)


def file_name(entry: WeightsEnum) -> str:
    """Return the name of an entry's file."""
    return str(entry.url).rsplit("/", 1)[-1]


def weight_folders(weights_dir: Path | None = None) -> list[Path]:
    """Return the folders in which files are searched, in this order; the last is torch's own, for downloads.

    Args:
        weights_dir: folder that a section names.
    """
    named = [weights_dir] if weights_dir is not None else []
    if variable := os.environ.get(WEIGHTS_DIR_VARIABLE):
        named.append(Path(variable).expanduser())
    return [*named, Path(torch.hub.get_dir()) / "checkpoints"]


def obtain(entry: WeightsEnum, weights_dir: Path | None = None) -> Path:
    """Return the file of an entry: out of a folder, or downloaded once into torch's own.

    Args:
        entry: torchvision's entry.
        weights_dir: folder that is searched first.

    Raises:
        DetectorError: if the file is in no folder and cannot be downloaded, or is not the one that torchvision made;
            the message says what to download and where to put it.
    """
    name, searched = file_name(entry), weight_folders(weights_dir)
    found = next((folder / name for folder in searched if (folder / name).is_file()), None)
    if found is None:
        found = _downloaded(entry, searched)
    stat = found.stat()
    if not _is_whole(found, stat.st_size, stat.st_mtime_ns):
        raise DetectorError(
            f"{found}: the file is damaged, or is not torchvision's: its SHA-256 does not begin as its name says. "
            f"Remove it, and download {entry.url} again."
        )
    return found


def found_weights() -> list[str]:
    """Return "model: name" of torchvision's weights for backbones and detectors whose files lie in a folder."""
    models = (*get_args(BackboneName), *BUILDERS)
    files = {file.name for folder in weight_folders() if folder.is_dir() for file in folder.iterdir()}
    entries = [(model, entry) for model in models for entry in get_model_weights(model)]
    return [f"{model}: {entry.name}" for model, entry in entries if file_name(entry) in files]


def _downloaded(entry: WeightsEnum, searched: list[Path]) -> Path:
    target = searched[-1] / file_name(entry)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(target):
            if not target.is_file():  # else another process was faster
                torch.hub.download_url_to_file(str(entry.url), str(target), progress=False)
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        megabytes = entry.meta.get("_file_size")
        size = f" ({megabytes:.0f} MB)" if megabytes else ""
        raise DetectorError(
            f"weights: {file_name(entry)} is in none of {', '.join(map(str, searched))}, and cannot be downloaded "
            f"({error}). Download {entry.url}{size} on a machine with a network, and put it into one of these "
            f"folders, or into one that 'weights_dir' or the environment variable {WEIGHTS_DIR_VARIABLE} names; or "
            "give its path as 'weights'."
        ) from error
    return target


@cache
def _is_whole(path: Path, size: int, time_ns: int) -> bool:
    """Return whether a file's SHA-256 begins as its name says; once for each content, since a search loads it often."""
    digits = _DIGITS_IN_NAME.search(path.name)
    if digits is None:
        return True
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest().startswith(digits[1])


def pixel_statistics(entry: WeightsEnum) -> tuple[list[float], list[float]] | None:
    """Return mean and standard deviation of the colors in [0, 1] with which weights were made; None: not stated."""
    transforms: Any = entry.transforms()
    if not hasattr(transforms, "mean"):
        return None  # a detector's, which normalizes by itself
    return list(transforms.mean), list(transforms.std)
