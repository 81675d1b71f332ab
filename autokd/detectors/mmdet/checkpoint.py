"""Weights that mmengine saved, read without running code: tensors, and the names of their classes."""

from __future__ import annotations

import copy
import logging
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autokd.detectors.mmdet import safe_unpickler
from autokd.detectors.mmdet.library import PROGRAM_ERRORS
from autokd.errors import DetectorError, name_list

logger = logging.getLogger(__name__)

_PREFIXES = ("module.", "model.")
_OPTIONAL_SUFFIX = "num_batches_tracked"
_SHOWN = 5
_CLASS_PARTS = ("bbox_head.", "mask_head.", "roi_head.", "dn_query_generator.")
"""Parts that hold layers whose shape depends on the number of classes."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The tensors of a file, and the class names that it states, if it does."""

    path: Path
    weights: dict[str, Tensor]
    classes: tuple[str, ...] | None


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a file that mmengine or mmcv 1.x saved, without running code in it.

    Raises:
        DetectorError: if there is no such file, or it is none of these, or it holds NaN or infinity.
    """
    path = Path(path)
    content = _read(path)
    weights = content
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            weights = content[key]
            break
    if not isinstance(weights, Mapping) or not weights or not all(isinstance(v, Tensor) for v in weights.values()):
        held = sorted(map(str, content))[:_SHOWN] if isinstance(content, Mapping) else type(content).__name__
        raise DetectorError(
            f"{path}: holds {held}, which is no checkpoint of MMDetection. Give one with a 'state_dict'."
        )
    spoiled = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if spoiled:
        raise DetectorError(
            f"{path}: {len(spoiled)} tensors hold NaN or infinity ({name_list(spoiled, limit=_SHOWN)}). The training "
            "that wrote them diverged: take an earlier checkpoint."
        )
    return Checkpoint(path, _without_prefix(weights), _classes(content.get("meta")))


def _read(path: Path) -> Any:
    if not path.is_file():
        raise DetectorError(f"{path}: there is no such checkpoint. Correct the path, or leave 'checkpoint' out.")
    try:
        # mmengine keeps the log of a training and much else beside the weights, which ``weights_only`` refuses.
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=safe_unpickler)
    except (pickle.UnpicklingError, *PROGRAM_ERRORS, EOFError) as error:
        raise DetectorError(
            f"{path}: not a checkpoint that torch can read ({error}). Give a file that mmengine wrote."
        ) from error


def _classes(meta: Any) -> tuple[str, ...] | None:
    """mmengine says ``dataset_meta.classes`` (earlier: CLASSES), mmcv 1.x ``CLASSES``."""
    if not isinstance(meta, Mapping):
        return None
    inner = meta.get("dataset_meta")
    stated = inner if isinstance(inner, Mapping) else meta
    names = next((stated[key] for key in ("classes", "CLASSES") if stated.get(key)), None)
    if not isinstance(names, (str, list, tuple)):
        return None
    return (names,) if isinstance(names, str) else tuple(map(str, names))


def _without_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix that a wrapper put before every name, and keep the versions of modules.

    ``_metadata`` holds these versions; modules translate old names of their parameters by them when they load.
    """
    bare = OrderedDict(weights)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in bare):
            bare = OrderedDict((name[len(prefix) :], value) for name, value in bare.items())
    if hasattr(weights, "_metadata"):
        vars(bare)["_metadata"] = weights._metadata
    return bare


def load_checkpoint(model: Any, checkpoint: Checkpoint, *, new_head: bool) -> None:
    """Load ``checkpoint`` into a model that was just built.

    With ``new_head``, layers whose shape depends on the classes may differ: they stay as they were initialized, and the
    log says which. Weights that the model has no place for are named in the log. DetectorError with a report of the
    keys where anything else does not fit; the model may then be partly loaded, and is of no use.
    """
    expected = model.state_dict()
    shapes = {
        name: f"{name}: {tuple(value.shape)} instead of {tuple(expected[name].shape)}"
        for name, value in checkpoint.weights.items()
        if name in expected and value.shape != expected[name].shape
    }
    fitting = copy.copy(checkpoint.weights)
    for name in shapes:
        del fitting[name]
    # The model's own hooks rename what earlier versions of MMDetection called otherwise.
    result = model.load_state_dict(fitting, strict=False)
    missing = [name for name in result.missing_keys if name not in shapes and not name.endswith(_OPTIONAL_SUFFIX)]
    renewed = [name for name in shapes if new_head and name.startswith(_CLASS_PARTS)]
    misshapen = [text for name, text in shapes.items() if name not in renewed]
    report = _report(missing, result.unexpected_keys, misshapen)
    if missing or misshapen:
        raise DetectorError(
            f"{checkpoint.path}: {_verdict(missing, list(shapes), expected)}: {report}. {_remedy(list(shapes))}"
        )
    if renewed:
        logger.warning("%s: layers of other classes start anew: %s.", checkpoint.path, ", ".join(renewed))
    if result.unexpected_keys:
        logger.warning("%s: the model has no place for %s.", checkpoint.path, report)


def _report(missing: list[str], unexpected: list[str], misshapen: list[str]) -> str:
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    return "; ".join(f"{len(names)} {kind} ({name_list(names, limit=_SHOWN)})" for kind, names in kinds if names)


def _verdict(missing: list[str], misshapen: list[str], expected: Mapping[str, Tensor]) -> str:
    backbone = [name for name in expected if name.startswith("backbone.") and not name.endswith(_OPTIONAL_SUFFIX)]
    lost = len(set(backbone) & {*missing, *misshapen})
    if backbone and lost > len(backbone) / 2:
        return f"the weights of another model ({lost} of the backbone's {len(backbone)} are not in it)"
    return "the weights do not fit the model of this config"


def _remedy(misshapen: list[str]) -> str:
    if misshapen and all(name.startswith(_CLASS_PARTS) for name in misshapen):
        return (
            "Only layers that depend on the classes differ: state the checkpoint's names as 'classes', or start these "
            "layers anew with 'new_head: true'."
        )
    return "Name the config with which the checkpoint was made, and the same 'options'."
