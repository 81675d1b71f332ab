"""A configuration whose recipes say everything: what the proxy inherits and what a student's config says is filled in.

``autokd.detectors.resolve`` makes one of any configuration. This module is its torch-free part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from autokd.config.model import DEFAULT_BUDGET, FOLLOW_FROM_BUDGET, RunConfig
from autokd.config.proxy import DEFAULT_IMAGES, ProxyRecipe, WarmStart
from autokd.config.recipes import FullRecipe, Recipe
from autokd.errors import ConfigError
from autokd.jobs import NO_DISTILLATION

_R = TypeVar("_R", bound=Recipe)
_LENGTHS = ("epochs", "steps", "images")
_OF_ENDLESS_VIEWS = ("num_views", "mosaic_probability", "mixup_probability", "mix_until", "batch_scale_range")


class ResolvedConfig(RunConfig):
    """A configuration that trains: every field of ``proxy`` and ``full`` holds the value that trainings use.

    A file written of it (``config_yaml``) resolves to the same values, whatever a student's config says by then. The
    fields are those of ``RunConfig``, and ``notes``.
    """

    notes: tuple[str, ...] = Field(default=(), exclude=True, repr=False)
    """Sentences on what was taken from the student's config; part of no file and no digest."""


@dataclass(frozen=True)
class StudentRecipes:
    """Fields of recipes that a student's config says, for what the file leaves open.

    Args:
        full: field -> value for the full recipe.
        proxy: field -> value for the proxy.
        notes: sentences on what was taken.
    """

    full: Mapping[str, Any] = field(default_factory=dict)
    proxy: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def given_to_full(config: RunConfig) -> dict[str, Any]:
    """Return the fields of every recipe that the file gives in ``full``.

    Args:
        config: the configuration as it was written.

    Returns:
        Field -> value.
    """
    return _given(config.full)


def given_to_proxy(config: RunConfig) -> dict[str, Any]:
    """Return the fields of every recipe that the file gives for the proxy: in ``proxy``, else in ``full``.

    The length is not inherited, nor are endless views, beside which the teacher would run in every proxy. An inherited
    batch is half as large, since a proxy trains for few steps.

    Args:
        config: the configuration as it was written.

    Returns:
        Field -> value.
    """
    inherited = {name: value for name, value in _given(config.full).items() if name not in _LENGTHS}
    if inherited.get("num_views") == "endless":
        inherited = {name: value for name, value in inherited.items() if name not in _OF_ENDLESS_VIEWS}
    if "batch_size" in inherited:
        inherited["batch_size"] = max(min(inherited["batch_size"], 2), inherited["batch_size"] // 2)
    return inherited | _default_length(config.proxy) | _given(config.proxy)


def complete_recipes(config: RunConfig, student: StudentRecipes | None = None) -> ResolvedConfig:
    """Fill in what the recipes of a configuration leave open.

    Args:
        config: a configuration; a resolved one is returned as it is.
        student: what the student's own config says; needed if ``full.from_student_config`` is true, and left out
            otherwise.

    Returns:
        A configuration that trains.

    Raises:
        ConfigError: if the student's config says something that no recipe can hold.
    """
    if isinstance(config, ResolvedConfig):
        return config
    found = student or StudentRecipes()
    assert student or not config.full.from_student_config, "autokd.detectors.resolve reads the student's config"
    full = _filled(config.full, found.full, {"from_student_config": False})
    proxy = _filled(config.proxy, found.proxy, given_to_proxy(config))
    proxy = proxy.model_copy(update={"warm_start": _warm_start(config.proxy.warm_start, full)})
    search = config.search
    if _leaves_the_search_open(config):
        search = search.model_copy(update={"budget": DEFAULT_BUDGET})
    if search.budget is not None and "baselines" not in config.full.model_fields_set:
        # What a search must beat stands in its race, which is cheaper than to train it with every seed.
        full = full.model_copy(update={"baselines": (NO_DISTILLATION,)})
    sections = {name: getattr(config, name) for name in RunConfig.model_fields} | {"search": search}
    return ResolvedConfig(**sections | {"full": full, "proxy": proxy, "notes": found.notes})


def _leaves_the_search_open(config: RunConfig) -> bool:
    """Return whether a file says nothing about how trials are judged, so that a budget decides."""
    given = config.search.model_fields_set
    return "proxy" not in config.model_fields_set and given.isdisjoint(FOLLOW_FROM_BUDGET | {"budget"})


def _default_length(proxy: ProxyRecipe) -> dict[str, Any]:
    """Return the limit of a proxy whose length the file leaves open: an epoch may have 100 images, or 100,000."""
    is_open = {"epochs", "images"}.isdisjoint(proxy.model_fields_set) and proxy.steps is None is proxy.of_epochs
    return {"images": DEFAULT_IMAGES} if is_open else {}


def _given(recipe: Recipe) -> dict[str, Any]:
    # pydantic remembers which fields were written; the others hold defaults, which inheritance and a student's config
    # may replace.
    return {name: getattr(recipe, name) for name in Recipe.model_fields if name in recipe.model_fields_set}


def _filled(recipe: _R, found: Mapping[str, Any], given: Mapping[str, Any]) -> _R:
    """Return the recipe with ``found``, and ``given`` above it; validated, since ``found`` was not yet."""
    values = {name: getattr(recipe, name) for name in type(recipe).model_fields}
    try:
        return type(recipe).model_validate(values | dict(found) | dict(given))
    except ValidationError as error:
        wrong = "; ".join(f"{part['loc'][0]} is {part['input']!r}: {part['msg']}" for part in error.errors())
        raise ConfigError(
            f"full.from_student_config: the student's config says what no recipe can hold. {wrong}. Give these keys in "
            "'full' and 'proxy', or leave from_student_config out."
        ) from None


def _warm_start(warm_start: WarmStart | None, full: FullRecipe) -> WarmStart | None:
    if warm_start is None or not {"epochs", "images"}.isdisjoint(warm_start.model_fields_set):
        return warm_start
    half: dict[str, Any] = {"epochs": max(1, full.epochs // 2)}
    if full.most_steps is not None:
        half["images"] = max(1, full.most_steps * full.batch_size // 2)
    return warm_start.model_copy(update=half)


__all__ = [
    "ResolvedConfig",
    "StudentRecipes",
    "complete_recipes",
    "given_to_full",
    "given_to_proxy",
]
