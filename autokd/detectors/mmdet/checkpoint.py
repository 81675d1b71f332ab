"""Weights that mmengine saved, read without running code: tensors, and the names of their classes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from autokd.detectors.weights_file import SHOWN, check_finite, held_in, read_content, state_dict_in, without_prefix
from autokd.errors import DetectorError, name_list

logger = logging.getLogger(__name__)

_OPTIONAL_SUFFIX = "num_batches_tracked"
_CLASS_PARTS = ("bbox_head.", "mask_head.", "roi_head.", "dn_query_generator.")
"""Parts that hold layers whose shape depends on the number of classes."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The tensors of a file by their names there, and the class names that it states, if it does."""

    path: Path
    weights: dict[str, Tensor]
    classes: tuple[str, ...] | None


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a file that mmengine or mmcv 1.x saved, without running code in it.

    Raises:
        DetectorError: if there is no such file, or it is none of these, or it holds NaN or infinity.
    """
    path = Path(path)
    content = read_content(path)
    weights = state_dict_in(content)
    if weights is None:
        raise DetectorError(
            f"{path}: holds {held_in(content)}, which is no checkpoint of MMDetection. Give one with a 'state_dict'."
        )
    check_finite(weights, path)
    return Checkpoint(path, weights, _classes(content.get("meta")))


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


def load_checkpoint(model: Any, checkpoint: Checkpoint, *, new_head: bool) -> None:
    """Load ``checkpoint`` into a model that was just built.

    With ``new_head``, layers whose shape depends on the classes may differ: they stay as they were initialized, and the
    log says which. Weights that the model has no place for are named in the log. DetectorError with a report of the
    keys where anything else does not fit; the model may then be partly loaded, and is of no use.
    """
    expected = model.state_dict()
    weights = without_prefix(checkpoint.weights, expected, checkpoint.path)
    shapes = {
        name: f"{name}: {tuple(value.shape)} instead of {tuple(expected[name].shape)}"
        for name, value in weights.items()
        if name in expected and value.shape != expected[name].shape
    }
    fitting = copy.copy(weights)
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
    return "; ".join(f"{len(names)} {kind} ({name_list(names, limit=SHOWN)})" for kind, names in kinds if names)


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
