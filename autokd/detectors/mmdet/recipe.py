"""The training of the user's config of MMDetection as a recipe: optimizer, schedule, epochs, batch size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from autokd.config import MmdetDetector, Recipe
from autokd.detectors.framework import PIPELINE_NOTE, ConfigRecipe
from autokd.detectors.mmdet.config_file import find_config, read_config
from autokd.detectors.mmdet.schedule import Length, Schedule, read_schedule, type_name
from autokd.errors import ConfigError

_OPTIMIZERS = {"SGD": "sgd", "AdamW": "adamw"}
_PLAIN = ("LoadImageFromFile", "LoadAnnotations", "PackDetInputs", "Resize", "Pad", "FilterAnnotations", "RandomFlip")
"""Transforms that AutoKD's own loading does too, or that change nothing in its images."""
_OF_RATES = ("bias_lr_mult", "dcn_offset_lr_mult", "dwconv_decay_mult", "flat_decay_mult", "custom_keys")
"""Keys of ``paramwise_cfg`` that recipes do not have."""


def recipe_of_config(section: MmdetDetector, given: Mapping[str, Any]) -> ConfigRecipe:
    """Read the training that the config of a section describes. Reading the config runs it.

    Args:
        section: the configuration.
        given: fields of a recipe that the user's file says; they are left out of the result. A given optimizer of
            another kind leaves the config's rate and decay aside, a given schedule all of its schedule. The rate
            follows the batch size, given or not, by ``auto_scale_lr.base_batch_size``.

    Returns:
        The other fields, with remarks, and what of the config is not taken.

    Raises:
        ConfigError: if the config has no optimizer, or says something that a recipe cannot, with the remedy.
    """
    config = read_config(section)
    where = str(find_config(section.config))
    fields: dict[str, Any] = {}
    sources: dict[str, str] = {}
    left: list[str] = []
    length = _length(config, left)
    if length.epochs:
        fields["epochs"] = length.epochs
    if size := (config.get("train_dataloader") or {}).get("batch_size"):
        fields["batch_size"] = int(size)
    _read_optimizer(config, given, fields, sources, left, where)
    rate = float(given.get("learning_rate", fields.get("learning_rate", _default("learning_rate"))))
    if "schedule" in given:
        left.append("param_scheduler, since the config file gives a schedule")
    else:
        schedule: Schedule = read_schedule(config.get("param_scheduler"), rate, length, where)
        fields |= schedule.fields
        left += schedule.notes
    _read_pipeline(config, fields, left)
    left += [f"the hook {type_name(hook)}" for hook in config.get("custom_hooks") or []]
    return ConfigRecipe({name: value for name, value in fields.items() if name not in given}, sources, tuple(left))


def _length(config: Any, left: list[str]) -> Length:
    about = config.get("train_cfg") or {}
    epochs, steps = int(about.get("max_epochs") or 0), int(about.get("max_iters") or 0)
    if steps and not epochs:
        left.append(f"train_cfg.max_iters {steps}: recipes count in epochs, see full.epochs")
    return Length(epochs, steps)


def _read_optimizer(
    config: Any, given: Mapping[str, Any], fields: dict[str, Any], sources: dict[str, str], left: list[str], where: str
) -> None:
    wrapper = config.get("optim_wrapper") or {}
    optimizer = wrapper.get("optimizer") or {}
    kind = _OPTIMIZERS.get(type_name(optimizer))
    wanted = given.get("optimizer")
    if wanted is not None and wanted != kind:
        left.append(
            f"the optimizer {type_name(optimizer)} with its rate and decay, since the config file gives {wanted}"
        )
    elif kind is None:
        found = f"its optimizer is {type_name(optimizer)}" if optimizer else "it has no optim_wrapper.optimizer"
        raise ConfigError(
            f"full.from_student_config: {where}: {found}, and AutoKD's loop has {', '.join(_OPTIMIZERS)}. Give "
            "'full.optimizer' and 'full.learning_rate' in the config file, or leave from_student_config out."
        )
    else:
        fields["optimizer"] = kind
        batch_size = given.get("batch_size", fields.get("batch_size", _default("batch_size")))
        _read_rate(config, optimizer, batch_size, fields, sources)
        _read_decay(optimizer, wrapper.get("paramwise_cfg") or {}, kind, fields)
        if kind == "sgd":
            fields |= {"momentum": float(optimizer.get("momentum", 0.0)), "nesterov": bool(optimizer.get("nesterov"))}
        if odd := sorted(set(optimizer) - {"type", "lr", "weight_decay", "momentum", "nesterov"}):
            left.append(f"optim_wrapper.optimizer's {', '.join(odd)}")
    left += [
        f"optim_wrapper.paramwise_cfg.{name}" for name in _OF_RATES if name in (wrapper.get("paramwise_cfg") or {})
    ]
    if "constructor" in wrapper:
        left.append(f"optim_wrapper.constructor {wrapper['constructor']}")
    if wrapper.get("accumulative_counts", 1) > 1:
        left.append(f"optim_wrapper.accumulative_counts {wrapper['accumulative_counts']}")
    _read_clipping(wrapper.get("clip_grad"), fields, left)


def _read_rate(
    config: Any, optimizer: Mapping[str, Any], batch_size: int, fields: dict[str, Any], sources: dict[str, str]
) -> None:
    """Scale the rate linearly with the batch size, as mmengine's ``scale_lr`` does."""
    rate = float(optimizer.get("lr", 1e-3))
    base = (config.get("auto_scale_lr") or {}).get("base_batch_size")
    if base and base != batch_size:
        sources["learning_rate"] = f"{rate:g} for {base} images a step"
        rate *= batch_size / base
    fields["learning_rate"] = rate


def _read_decay(optimizer: Mapping[str, Any], paramwise: Mapping[str, Any], kind: str, fields: dict[str, Any]) -> None:
    """Read the weight decay, with torch's defaults; every parameter decays unless ``paramwise_cfg`` says otherwise."""
    fields["weight_decay"] = float(optimizer.get("weight_decay", 0.01 if kind == "adamw" else 0.0))
    for name, key in (("norm_decay", "norm_decay_mult"), ("bias_decay", "bias_decay_mult")):
        factor = paramwise.get(key)
        fields[name] = 1.0 if factor is None else float(factor)


def _read_clipping(clipping: Any, fields: dict[str, Any], left: list[str]) -> None:
    if not clipping:
        fields["gradient_clip_norm"] = None
    elif "max_norm" in clipping and clipping.get("norm_type", 2) == 2 and clipping.get("type", "norm") == "norm":
        fields["gradient_clip_norm"] = float(clipping["max_norm"])
    else:
        left.append(f"optim_wrapper.clip_grad {dict(clipping)}, since recipes clip by the norm of order 2")


def _read_pipeline(config: Any, fields: dict[str, Any], left: list[str]) -> None:
    """Take flips over into the recipe, and name the other random transforms."""
    transforms = list(_transforms((config.get("train_dataloader") or {}).get("dataset")))
    if not transforms:
        return
    flips = [part for part in transforms if type_name(part) == "RandomFlip"]
    fields["flip_probability"] = 0.0
    if flips:
        odds, directions = flips[0].get("prob"), flips[0].get("direction", "horizontal")
        if isinstance(odds, (int, float)) and directions == "horizontal" and len(flips) == 1:
            fields["flip_probability"] = float(odds)
        else:
            del fields["flip_probability"]
            left.append(f"{PIPELINE_NOTE}RandomFlip other than one to the side")
    others = dict.fromkeys(type_name(part) for part in transforms if type_name(part) not in _PLAIN)
    if others:
        left.append(f"{PIPELINE_NOTE}{', '.join(others)}")


def _transforms(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the transforms of a data set and of the data sets that it wraps."""
    if not isinstance(dataset, Mapping):
        return
    yield from (part for part in dataset.get("pipeline") or [] if isinstance(part, Mapping))
    inner = dataset.get("dataset") or dataset.get("datasets")
    for part in inner if isinstance(inner, (list, tuple)) else [inner]:
        yield from _transforms(part)


def _default(name: str) -> Any:
    return Recipe.model_fields[name].default
