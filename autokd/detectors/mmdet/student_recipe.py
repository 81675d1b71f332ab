"""``full: {from_student_config: true}``: what the space file leaves open is settled by the student's own config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from autokd.config import MmdetDetector, Recipe, RunConfig, WarmStart
from autokd.config.recipes import STUDENT_FIELDS
from autokd.errors import ConfigError

_R = TypeVar("_R", bound=Recipe)

_IN_ORDER = [name for name in Recipe.model_fields if name in STUDENT_FIELDS]
_BESIDE_SCHEDULES = {
    "one_cycle": ("warmup_fraction",),
    "constant": (),
    "multi_step": ("milestones", "gamma"),
    "cosine": ("schedule_span", "end_factor", "changes_by"),
    "poly": ("schedule_span", "end_factor", "power", "changes_by"),
}
_OF_SCHEDULES = {name for names in _BESIDE_SCHEDULES.values() for name in names}


def settle_recipes(config: RunConfig) -> tuple[RunConfig, tuple[str, ...]]:
    """Fill in what ``full`` and ``proxy`` take of the student's config; return also sentences on what was taken.

    A configuration that does not ask for it, or is settled already, comes back as it is. The proxy has the same recipe
    with its own number of epochs, and a warm-up in steps shortened in proportion. ConfigError for a config that does
    not say how it trains, or says what recipes cannot.
    """
    full, proxy = config.full, config.proxy
    if not full.from_student_config or full.model_fields_set >= STUDENT_FIELDS:
        return config, ()
    from autokd.detectors.mmdet import recipe_of_config

    student = config.student
    assert isinstance(student, MmdetDetector), "the configuration refuses it for others"
    given = _given(full)
    found = recipe_of_config(student, given)
    full = _filled(full, found.fields)
    short = recipe_of_config(student, _given(proxy) | {"epochs": proxy.epochs})
    proxy = _filled(proxy, short.fields)
    if "warmup_steps" in short.fields and proxy.warmup_steps:
        part = proxy.epochs * proxy.subset / full.epochs
        proxy = proxy.model_copy(update={"warmup_steps": round(proxy.warmup_steps * min(part, 1.0))})
    if proxy.warm_start is not None and "epochs" not in proxy.warm_start.model_fields_set:
        half = max(1, full.epochs // 2)
        proxy = proxy.model_copy(update={"warm_start": WarmStart(epochs=half, of_epochs=proxy.warm_start.of_epochs)})
    notes = [f"full: {student.config} says {_text(full, found.fields, found.sources)}"]
    if kept := [name for name in _IN_ORDER if name in given]:
        notes.append(f"full: the space file says {_text(full, given, {}, kept)}")
    if found.left:
        notes.append(f"not, or not exactly, taken of {student.config}: {'; '.join(found.left)}")
    rise = "" if not proxy.warmup_steps else f", a warm-up of {proxy.warmup_steps} steps"
    notes.append(f"proxy: the same where the space file is silent, with {proxy.epochs} epochs{rise}")
    return config.model_copy(update={"full": full, "proxy": proxy}), tuple(notes)


def _given(recipe: Recipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in _IN_ORDER if name in recipe.model_fields_set}


def _filled(recipe: _R, taken: Mapping[str, Any]) -> _R:
    """The recipe with what was taken, every settled field written out, so that it is not settled twice."""
    settled = {name: getattr(recipe, name) for name in {*recipe.model_fields_set, *STUDENT_FIELDS}}
    try:
        return type(recipe).model_validate(settled | dict(taken))
    except ValidationError as error:
        found = "; ".join(f"{part['loc'][0]} is {part['input']!r}: {part['msg']}" for part in error.errors())
        raise ConfigError(f"full.from_student_config: the config says what no recipe can be. {found}") from None


def _text(recipe: Recipe, names: Mapping[str, Any], sources: Mapping[str, str], order: list[str] | None = None) -> str:
    """ "epochs 12, learning_rate 0.0025 (0.02 for 16 images a step), ...", without what its schedule does not use."""
    used = _BESIDE_SCHEDULES[recipe.schedule]
    idle = (_OF_SCHEDULES - set(used)) | (set() if recipe.optimiser == "sgd" else {"momentum", "nesterov"})
    if recipe.warmup_steps is None and recipe.schedule != "constant":
        idle = (idle - {"warmup_fraction"}) | {"warmup_steps"}
    if recipe.warmup_steps == 0:
        idle |= {"warmup_start"}
    shown = [name for name in order or _IN_ORDER if name in names and name not in idle]
    parts = [f"{name} {_value(getattr(recipe, name))}" for name in shown]
    return ", ".join(f"{part} ({sources[name]})" if name in sources else part for name, part in zip(shown, parts))


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(f'{number:.4g}' for number in value)}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "null" if value is None else str(value).lower()
