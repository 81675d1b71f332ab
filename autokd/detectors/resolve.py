"""Resolves a configuration: fills in what its recipes leave open, with ``full.from_student_config`` from the student.

A configuration is resolved once, before anything is trained; trainings take a ``ResolvedConfig`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autokd.config import (
    Recipe,
    ResolvedConfig,
    RunConfig,
    StudentRecipes,
    complete_recipes,
    given_to_full,
    given_to_proxy,
)
from autokd.detectors.framework import PIPELINE_NOTE, ConfigRecipe, framework_of

_STUDENT_FIELDS = (
    "epochs", "batch_size", "optimizer", "momentum", "nesterov", "learning_rate", "weight_decay", "norm_decay",
    "bias_decay", "schedule", "warmup_fraction", "warmup_steps", "warmup_start", "milestones", "gamma", "schedule_span",
    "end_factor", "power", "changes_by", "gradient_clip_norm", "flip_probability",
)  # fmt: skip
"""Fields that a student's own config may decide, in the order of ``Recipe``."""

_READ_BY_SCHEDULE = {
    "one_cycle": ("warmup_fraction",),
    "constant": (),
    "multi_step": ("milestones", "gamma"),
    "cosine": ("schedule_span", "end_factor", "changes_by"),
    "poly": ("schedule_span", "end_factor", "power", "changes_by"),
}
_OF_SCHEDULES = {name for names in _READ_BY_SCHEDULE.values() for name in names}


def resolve(config: RunConfig) -> ResolvedConfig:
    """Return the configuration with complete recipes.

    ``proxy`` takes what it leaves open from ``full``. With ``full.from_student_config``, what both leave open comes
    from the student's own config, whose Python is run; ``notes`` of the result say what was taken.

    Args:
        config: as ``load_config`` returns it; a resolved one is returned as it is.

    Raises:
        ConfigError: if the student's config does not say how it trains, or says what a recipe cannot hold.
    """
    if isinstance(config, ResolvedConfig) or not config.full.from_student_config:
        return complete_recipes(config)
    return complete_recipes(config, _read_student(config))


def _read_student(config: RunConfig) -> StudentRecipes:
    """Read the student's config twice: its rate and warm-up depend on the batch size, its schedule on the epochs."""
    given, given_proxy = given_to_full(config), given_to_proxy(config)
    full = _recipe_of(config, given)
    proxy = dict(_recipe_of(config, given_proxy | {"epochs": config.proxy.epochs}).fields)
    if proxy.get("warmup_steps"):
        # A warm-up of fixed length would fill most of a short training: it keeps its part of the steps instead.
        num_epochs = (given | dict(full.fields)).get("epochs", config.full.epochs)
        part = config.proxy.epochs * config.proxy.subset / num_epochs
        proxy["warmup_steps"] = round(proxy["warmup_steps"] * min(part, 1.0))
    return StudentRecipes(full.fields, proxy, _notes(config, full, given, given_proxy | proxy))


def _recipe_of(config: RunConfig, given: Mapping[str, Any]) -> ConfigRecipe:
    found = framework_of(config.student).recipe(config.student, given)
    assert found is not None, "RunConfig refuses from_student_config for students without a recipe"
    return found


def _notes(
    config: RunConfig, full: ConfigRecipe, given: Mapping[str, Any], proxy: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return sentences on what the student's config said, what the file said instead, and what was not taken."""
    recipe = config.full.model_copy(update=dict(full.fields))
    notes = [f"full: the student's config says {_text(recipe, full.fields, full.sources)}"]
    if any(name in given for name in _STUDENT_FIELDS):
        notes.append(f"full: the config file says {_text(recipe, given, {})}")
    left = full.left
    if config.full.pipeline == "student_config":
        left = tuple(part for part in left if not part.startswith(PIPELINE_NOTE))
        notes.append("full: images come through the train pipeline of the student's config, without flip_probability")
    if left:
        notes.append(f"not, or not exactly, taken from the student's config: {'; '.join(left)}")
    rise = f", a warm-up of {proxy['warmup_steps']} steps" if proxy.get("warmup_steps") else ""
    notes.append(f"proxy: the same where the config file is silent, with {config.proxy.epochs} epochs{rise}")
    return tuple(notes)


def _text(recipe: Recipe, names: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    """Return "epochs 12, learning_rate 0.0025 (0.02 for 16 images a step), ..."; fields without effect are left out."""
    shown = [name for name in _STUDENT_FIELDS if name in names and name not in _unread_fields(recipe)]
    parts = [f"{name} {_value(getattr(recipe, name))}" for name in shown]
    return ", ".join(f"{part} ({sources[name]})" if name in sources else part for name, part in zip(shown, parts))


def _unread_fields(recipe: Recipe) -> set[str]:
    unread = _OF_SCHEDULES - set(_READ_BY_SCHEDULE[recipe.schedule])
    if recipe.optimizer != "sgd":
        unread |= {"momentum", "nesterov"}
    if recipe.warmup_steps is None and recipe.schedule != "constant":
        unread = (unread - {"warmup_fraction"}) | {"warmup_steps"}
    if recipe.warmup_steps == 0:
        unread |= {"warmup_start"}
    return unread


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(f'{number:.4g}' for number in value)}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "null" if value is None else str(value).lower()
