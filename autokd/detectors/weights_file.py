"""Files of weights read as data: no code in them runs, and wrappers and prefixes of other people's trainings come off.

A file may hold the weights alone or under a key, beside the state of an optimizer, arguments and numbers. Every name
may begin with a prefix that a wrapper put there (torch.compile, DataParallel, Lightning, MMRazor).
"""

from __future__ import annotations

import logging
import pickle
from collections import Counter, OrderedDict
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autokd.detectors import safe_unpickler
from autokd.errors import DetectorError, name_list

logger = logging.getLogger(__name__)

WRAPPERS = ("model_ema", "state_dict_ema", "ema", "state_dict", "model_state_dict", "model", "module")
"""Keys under which trainings keep weights. An average comes first, as in timm: it is what such a training evaluates."""
SHOWN = 5
"""Names that an error writes out."""
_DEPTH = 4
_ERRORS = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, ImportError,
    OSError, ArithmeticError, AssertionError,
)  # fmt: skip
"""Errors that torch raises on a file that is none of its own."""


def read_content(path: Path) -> Any:
    """Return what a file of torch holds; objects other than tensors and plain containers become placeholders.

    Raises:
        DetectorError: if there is no such file, or it is none of torch's, or a TorchScript program.
    """
    if not path.is_file():
        raise DetectorError(f"{path}: there is no such checkpoint. Correct the path, or leave 'checkpoint' out.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if _is_program(path):
        raise DetectorError(
            f"{path}: refused, since it is a TorchScript program, whose reading may run code. Save the weights alone: "
            "torch.save(model.state_dict(), path)."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=safe_unpickler)
    except _ERRORS as error:
        raise DetectorError(
            f"{path}: not a checkpoint that torch can read ({_first_line(error)}). Give a file written by torch.save."
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise DetectorError(
            f"{path}: safetensors is not installed, which reads this file. Install it: pip install 'autokd[export]'."
        ) from None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DetectorError(f"{path}: not a safetensors file ({error}).") from error


def state_dict_in(content: Any) -> dict[str, Tensor] | None:
    """Return the weights in a file's content, with their names; None if there are none.

    What lies beside them, such as arguments and numbers, is left out.

    Args:
        content: what ``read_content`` gives.
    """
    for _ in range(_DEPTH):
        if not isinstance(content, Mapping):
            return None
        key = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        content = content[key]
    weights = OrderedDict((k, v.detach()) for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor))
    if hasattr(content, "_metadata"):  # versions of modules, by which they translate old names when they load
        vars(weights)["_metadata"] = content._metadata
    return weights or None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the weights of a file by their names there.

    Raises:
        DetectorError: if the file cannot be read or holds no weights.
    """
    content = read_content(path)
    weights = state_dict_in(content)
    if weights is None:
        raise DetectorError(
            f"{path}: holds {held_in(content)}, which is no state dict. Save names and tensors alone, "
            f"torch.save(model.state_dict(), path), or put them under one of the keys {', '.join(WRAPPERS)}."
        )
    return weights


def held_in(content: Any) -> str:
    """Return the keys of a file's content as text, or the kind of object that it is."""
    if isinstance(content, Mapping):
        return str(sorted(map(str, content))[:SHOWN])
    if isinstance(content, safe_unpickler.Placeholder):
        return "a whole pickled object"
    return type(content).__name__


def without_prefix(weights: dict[str, Tensor], expected: Container[str], where: Path) -> dict[str, Tensor]:
    """Return the weights by the names that a model expects.

    The prefix is the one that turns most names into expected ones. Of two that do so equally, such as those of a
    student and a teacher in one file, a teacher's loses, and then the longer one. Names without the prefix belong to
    other parts and are left out, which the log says.

    Args:
        weights: name -> tensor, as read.
        expected: names of the model.
        where: the file, for the log.
    """
    counts: Counter[str] = Counter()
    for name in weights:
        pieces = name.split(".")
        for i in range(len(pieces)):
            if ".".join(pieces[i:]) in expected:
                counts["".join(f"{piece}." for piece in pieces[:i])] += 1
    if not counts:
        return weights
    prefix = max(counts, key=lambda each: (counts[each], "teacher" not in each, -len(each)))
    if not prefix:
        return weights
    bare = OrderedDict((name[len(prefix) :], value) for name, value in weights.items() if name.startswith(prefix))
    others = [name for name in weights if not name.startswith(prefix)]
    if others:
        logger.info(
            "%s: the names that begin with %r are read; %d others are not (%s).",
            where, prefix, len(others), name_list(others, limit=SHOWN),
        )  # fmt: skip
    if hasattr(weights, "_metadata"):
        vars(bare)["_metadata"] = {
            key[len(prefix) :] if key.startswith(prefix) else key: value for key, value in weights._metadata.items()
        }
    return bare


def check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    """Check that no tensor holds NaN or infinity.

    Raises:
        DetectorError: naming those that do.
    """
    spoiled = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if spoiled:
        raise DetectorError(
            f"{path}: {len(spoiled)} tensors hold NaN or infinity ({name_list(spoiled, limit=SHOWN)}). The training "
            "that wrote them diverged: take an earlier checkpoint."
        )


def _is_program(path: Path) -> bool:
    """Return whether torch would take the file for TorchScript, whatever unpickler it is given."""
    try:
        records = torch._C.PyTorchFileReader(str(path)).get_all_records()
    except (RuntimeError, UnicodeDecodeError):  # no archive at all, or one whose records have damaged names
        return False
    return "constants.pkl" in records


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
