"""Loading weights from a file into a detector: no code is run, and mismatches are named before anything changes."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autokd.detectors.contract import Detector
from autokd.errors import DetectorError, name_list

_WRAPPERS = ("model", "state_dict", "model_state_dict")
_PREFIXES = ("module.", "model.")
_OPTIONAL_SUFFIX = "num_batches_tracked"
_SHOWN = 5


def load_weights(detector: Detector, path: Path | str) -> None:
    """Load a state dict into a detector's plain model.

    Args:
        detector: of any framework; unchanged if an error is raised.
        path: file with a state dict of the plain model, alone or under the key ``model``, ``state_dict`` or
            ``model_state_dict``; all names may begin with ``module.`` or ``model.``. It is read with ``weights_only``,
            so it cannot execute code.

    Raises:
        DetectorError: if the file cannot be read, does not fit, or holds NaN or infinity.
    """
    path = Path(path)
    found = _without_prefix(_state_dict_of(_read(path), path))
    expected = detector.model.state_dict()
    missing = [name for name in expected if name not in found and not name.endswith(_OPTIONAL_SUFFIX)]
    unexpected = [name for name in found if name not in expected]
    misshapen = [
        f"{name}: {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} {kind} ({name_list(names, limit=_SHOWN)})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise DetectorError(
            f"{path}: the weights do not fit this {detector.architecture} of {detector.num_classes} classes: "
            f"{'; '.join(problems)}. Set architecture, backbone, fpn_channels, head_convs and the image size as they "
            "were when the checkpoint was made, and use a data set with the same classes."
        )
    spoiled = [name for name, value in found.items() if value.is_floating_point() and not value.isfinite().all()]
    if spoiled:
        raise DetectorError(
            f"{path}: {len(spoiled)} tensors hold NaN or infinity ({name_list(spoiled, limit=_SHOWN)}). The training "
            "that wrote them diverged: take an earlier checkpoint."
        )
    detector.model.load_state_dict(found, strict=False)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise DetectorError(f"{path}: there is no such checkpoint. Correct the path, or leave 'checkpoint' out.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DetectorError(
            f"{path}: refused, since it holds more than tensors and reading it could execute code "
            f"({str(error).splitlines()[0]}). Save the state dict alone: torch.save(model.state_dict(), path)."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, OSError) as error:
        raise DetectorError(
            f"{path}: not a checkpoint that torch can read ({error}). Give a file written by torch.save."
        ) from error


def _state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
                break
    is_state_dict = isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )
    if not is_state_dict or not content:
        held = sorted(map(str, content))[:_SHOWN] if isinstance(content, Mapping) else type(content).__name__
        raise DetectorError(
            f"{path}: holds {held}, which is no state dict. Save names and tensors alone, or put them under one of the "
            f"keys {', '.join(_WRAPPERS)}."
        )
    return dict(content)


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix that DataParallel or an enclosing module put before every name."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name[len(prefix) :]: value for name, value in weights.items()}
    return weights
