"""The configuration of a model of transformers, as a section describes it: read, overridden, checked. Data only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from autokd.config import TransformersDetector
from autokd.detectors.transformers.library import PROGRAM_ERRORS, first_line, transformers_library
from autokd.errors import DetectorError, one_of

_OUTPUTS = ("out_features", "out_indices", "stage_names")
"""Keys of a backbone that say one thing; one that is overridden replaces the others."""
_UNSTRUCTURAL = ("id2label", "label2id", "_name_or_path", "transformers_version", "architectures", "dtype")


def config_of(section: TransformersDetector) -> Any:
    """Return the model's configuration with the section's overrides, and with its own classes.

    Args:
        section: the configuration; a name on the hub is looked up there, or in transformers' cache.

    Returns:
        A ``PretrainedConfig`` of the caller's own.

    Raises:
        DetectorError: if there is no such model, it is no object detector, or an override is none of its keys.
    """
    file = None if section.folder is None else section.folder / "config.json"
    # The text, so that a file that has changed is read again.
    text = file.read_text() if file is not None and file.is_file() else ""
    return deepcopy(_read(section.name, section.revision, json.dumps(section.config), text))


def structure_text(section: TransformersDetector) -> str:
    """Return the model's configuration as text, without classes, paths and versions."""
    return json.dumps(_structural(config_of(section).to_dict()), sort_keys=True, default=str)


def _structural(found: Any) -> Any:
    if not isinstance(found, dict):
        return found
    return {key: _structural(value) for key, value in found.items() if key not in _UNSTRUCTURAL}


def with_classes(config: Any, classes: Sequence[str]) -> Any:
    """Set the classes of a configuration, and return it.

    Args:
        config: a ``PretrainedConfig``.
        classes: names, in the order of the labels.
    """
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: label for label, name in enumerate(classes)}
    return config


def unreachable(name: str, error: BaseException) -> DetectorError:
    """Return the error for a model that is neither a folder here nor found on the hub.

    Args:
        name: the section's ``name``.
        error: what transformers raised.
    """
    if Path(name).suffix or name.startswith((".", "/", "~")) or name.count("/") > 1:
        return DetectorError(
            f"{name}: there is no such folder with a model of transformers ({first_line(error)}). Correct the path: "
            "'name' is a folder that save_pretrained wrote, with config.json and model.safetensors."
        )
    return DetectorError(
        f"{name}: found neither a folder of this name nor a model on the hub ({first_line(error)}). Without a network, "
        f"run 'hf download {name} --local-dir FOLDER' on a machine that has one, copy the folder here, and give it as "
        "'name'; else correct the name."
    )


@lru_cache(maxsize=32)
def _read(name: str | None, revision: str | None, overrides: str, _text: str) -> Any:
    given = json.loads(overrides)
    config = _by_type(given) if name is None else _by_name(name, revision, given)
    if type(config) not in transformers_library().MODEL_FOR_OBJECT_DETECTION_MAPPING:
        raise DetectorError(
            f"{name or given['model_type']}: a model of type {config.model_type} is no object detector of "
            f"transformers {transformers_library().__version__}. Types that are: {', '.join(detector_types())}."
        )
    return config


def detector_types() -> tuple[str, ...]:
    """Return the model types for which the installed version has an object detector."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

    return tuple(MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES)


def _by_name(name: str, revision: str | None, given: Mapping[str, Any]) -> Any:
    try:
        config = transformers_library().AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except PROGRAM_ERRORS as error:
        raise unreachable(name, error) from error
    return overridden(config, given)


def overridden(config: Any, given: Mapping[str, Any]) -> Any:
    """Set keys of a configuration, and return it.

    Args:
        config: a ``PretrainedConfig``.
        given: dotted key -> value.

    Raises:
        DetectorError: if it has no such key.
    """
    for key, value in given.items():
        *path, last = key.split(".")
        part = config
        for step in path:
            part = _known(part, step, key)
        _known(part, last, key)
        setattr(part, last, value)
    return config


def _known(part: Any, name: str, key: str) -> Any:
    if not hasattr(part, name):
        known = [each for each in part.to_dict() if not each.startswith("_")]
        raise DetectorError(f"config.{key}: " + one_of(name, known, noun=f"key of {part.model_type}"))
    return getattr(part, name)


def _by_type(given: Mapping[str, Any]) -> Any:
    """Build a configuration from overrides of the type's defaults."""
    library, nested = transformers_library(), _nested(given)
    model_type = nested.pop("model_type")
    if model_type not in detector_types():
        raise DetectorError("config.model_type: " + one_of(str(model_type), list(detector_types()), noun="detector"))
    try:
        default = library.AutoConfig.for_model(model_type, use_timm_backbone=False)
        merged = dict(_merged(library, default, nested, ""))
        config = library.AutoConfig.for_model(model_type, use_timm_backbone=False, **merged)
    except PROGRAM_ERRORS as error:
        raise DetectorError(
            f"config: transformers cannot make a {model_type} of it ({first_line(error)}). Correct the keys; the "
            f"class is {model_type}'s configuration in its documentation."
        ) from error
    if hasattr(config, "use_timm_backbone"):
        del config.use_timm_backbone
    return config


def _merged(library: Any, default: Any, given: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    known = default.to_dict()
    for key, value in given.items():
        if not hasattr(default, key):
            names = [name for name in known if not name.startswith("_")]
            raise DetectorError(f"config.{where}{key}: " + one_of(key, names, noun=f"key of {default.model_type}"))
        if not isinstance(value, dict):
            yield key, value
            continue
        part = getattr(default, key)
        if value.get("model_type", getattr(part, "model_type", None)) != getattr(part, "model_type", None):
            part = library.AutoConfig.for_model(value["model_type"])
        inner = dict(_merged(library, part, value, f"{where}{key}."))
        base = {name: old for name, old in part.to_dict().items() if name not in _OUTPUTS}
        if not any(name in inner for name in _OUTPUTS) and getattr(part, "out_indices", None):
            inner["out_indices"] = list(part.out_indices)
        yield key, base | inner


def _nested(given: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} as {"a": {"b": 1}}."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        *path, last = key.split(".")
        part = found
        for step in path:
            part = part.setdefault(step, {})
        part[last] = value
    return found
