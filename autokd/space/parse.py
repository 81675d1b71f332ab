"""Reads a space from YAML.

    terms: {min: 1, max: 2}
    sources: [feature_map, foreground, {instance: {size: [4, 7]}}]        # or: all
    transforms: {attention: [none, spatial_attention], normalize: [none, {softmax_cells: {temperature: [1, 4]}}]}
    distances: [l1, l2, kl]                                         # or: all
    gradient_ratio: {log_uniform: [3, 1000]}                              # or: [10, 100]
    schedule: [constant, linear_decay, {off_after: 0.93}]           # of weights; also warm_up, cosine_decay
    level_weighting: [equal, gap]                                            # how levels share a weight; also gradient
    levels: [all, coarsest, [p3, p4]]                               # that a term is read on; left out: all
    adapter: [linear, mlp]                                        # of the student's maps

A parameter with a list is a categorical decision, with {uniform: ...} or {log_uniform: ...} a continuous one. ``only``
restricts a step or a distance to layouts: {sigmoid: {only: logits}}, {l2: {only: [map, regions]}}; docs/operators.md
lists the layouts that each operator takes. ``all`` in place of a list stands for all that fit; of schedules, for those
without a number. Each item of ``levels`` is a choice: all, coarsest, finest, a name, or a list of names of the
student's levels.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, TypeVar

from autokd.documents import Document, Location
from autokd.errors import SpaceError, SpecError, one_of
from autokd.space.domains import Choices, Domain, Range, parse_domain
from autokd.space.restrict import unreachable_options, without_options
from autokd.space.slots import Option, Slot
from autokd.space.space import Space, levels_label
from autokd.spec import DISTANCES, SOURCES, TRANSFORMS, FlowState, Step, Weight, flow, operator_of
from autokd.spec.operator import Kind, Layout, Operator
from autokd.spec.terms import ADAPTERS, LEVEL_WEIGHTINGS, SCHEDULES, Levels
from autokd.spec.text import parse_levels, schedule_with_number
from autokd.spec.vocabulary import IDENTITY

DEFAULT_SPACE: dict[str, Any] = {
    "terms": {"min": 1, "max": 2},
    "sources": ["feature_map", "foreground", "background", "instance"],
    "transforms": {
        "attention": ["none", "spatial_attention", "channel_attention"],
        "scale": ["none", "max_pool", "local_patches"],
        "normalize": ["none", "standardize", "l2_channels", "l2_cells", "softmax_cells", "softmax_channels"],
    },
    "distances": ["l1", "l2", "smooth_l1", "cosine", "pearson", "kl"],
    "gradient_ratio": {"log_uniform": [3, 1000]},
    "schedule": ["constant"],
    "level_weighting": ["equal"],
    "adapter": ["linear"],
}

Word = TypeVar("Word", bound=str)

# ``levels`` is not in DEFAULT_SPACE: a space's document is part of the digest of recorded tables, which know no levels.
_KEYS = (*DEFAULT_SPACE, "levels")
_PLAIN_SCHEDULES = tuple(schedule for schedule in SCHEDULES if schedule != "off_after")
_MAX_TERMS = 8


def space_from_document(document: Document) -> Space:
    """Read a space.

    Args:
        document: a mapping with keys of ``DEFAULT_SPACE``, from which missing keys are taken.

    Returns:
        The space, with the document in it.

    Raises:
        SpaceError: with file and line, for an unknown key, a misspelled operator, a parameter out of range, an empty
            range, or an option that no well-typed term can use.
    """
    data = document.data
    if not isinstance(data, dict):
        raise document.error((), f"found {data!r}; a space is a mapping with {', '.join(_KEYS)}.", SpaceError)
    for key in data:
        if key not in _KEYS:
            raise document.error((key,), one_of(key, _KEYS, noun="key"), SpaceError)
    low, high = _terms(data.get("terms", DEFAULT_SPACE["terms"]), document)
    sources = _slot("source", "source", data.get("sources", DEFAULT_SPACE["sources"]), document, ("sources",))
    transforms = _transforms(data.get("transforms", DEFAULT_SPACE["transforms"]), document)
    distances = _slot(
        "distance", "distance", data.get("distances", DEFAULT_SPACE["distances"]), document, ("distances",)
    )
    gradient_ratio = parse_domain(
        data.get("gradient_ratio", DEFAULT_SPACE["gradient_ratio"]), document, ("gradient_ratio",)
    )
    schedules = _schedules(data.get("schedule", DEFAULT_SPACE["schedule"]), document)
    level_weighting = _words("level_weighting", LEVEL_WEIGHTINGS, data, document)
    levels = _levels(data.get("levels", "all"), document)
    adapters = _words("adapter", ADAPTERS, data, document)
    slots = (sources, *transforms, distances)
    space = Space(low, high, slots, gradient_ratio, schedules, level_weighting, levels, adapters)
    unused = [(slot, option) for slot, option in unreachable_options(space) if _given(slot, data) == "all"]
    space = without_options(space, unused)
    _refuse_unreachable(space, data, document)
    return replace(space, document=DEFAULT_SPACE | data)


def _given(slot: Slot, data: dict[str, Any]) -> Any:
    """Return what the file says about a slot; "all" stands for all options that fit, so that others are dropped."""
    if slot.kind != "transform":
        return data.get(f"{slot.kind}s")
    transforms = data.get("transforms")
    return transforms.get(slot.name) if isinstance(transforms, dict) else transforms


def _words(key: str, allowed: tuple[Word, ...], data: dict[str, Any], document: Document) -> tuple[Word, ...]:
    """Read a word, a list of different words, or 'all'."""
    found = data.get(key, DEFAULT_SPACE[key])
    words = list(allowed) if found == "all" else found if isinstance(found, list) else [found]
    if not words or len(set(map(str, words))) < len(words):
        choices = ", ".join(allowed)
        raise document.error((key,), f"found {found!r}; write one or more of {choices}, each once.", SpaceError)
    for word in words:
        if word not in allowed:
            raise document.error((key,), one_of(str(word), allowed, noun=key), SpaceError)
    return tuple(words)


def _schedules(found: Any, document: Document) -> tuple[str, ...]:
    """Read schedules as their labels: 'all', or words and ``{off_after: part}`` with a number or a list of numbers."""
    items = list(_PLAIN_SCHEDULES) if found == "all" else found if isinstance(found, list) else [found]
    labels: list[str] = []
    for i, item in enumerate(items):
        place: Location = ("schedule", i) if isinstance(found, list) else ("schedule",)
        if isinstance(item, dict):
            labels += _off_after(item, document, place)
        elif item in _PLAIN_SCHEDULES:
            labels.append(item)
        else:
            raise document.error(place, one_of(str(item), SCHEDULES, noun="schedule"), SpaceError)
    if not labels or len(set(labels)) < len(labels):
        choices = ", ".join(_PLAIN_SCHEDULES)
        raise document.error(
            ("schedule",),
            f"found {found!r}; write one or more of {choices}, {{off_after: 0.93}}, each once.",
            SpaceError,
        )
    return tuple(labels)


def _off_after(item: dict[Any, Any], document: Document, location: Location) -> list[str]:
    try:
        given = schedule_with_number(item, document, location)
    except SpecError as error:
        raise SpaceError(str(error)) from None
    numbers = given["off_after"] if isinstance(given["off_after"], list) else [given["off_after"]]
    try:
        return [Weight("relative", 1.0, "off_after", off_after=number).schedule_label for number in numbers]
    except SpecError as error:
        raise document.error(location, str(error), SpaceError) from None


def _levels(data: Any, document: Document) -> tuple[Levels, ...]:
    """Read the choices of levels: a list of words, names and lists of names, or one of them."""
    items = data if isinstance(data, list) else [data]
    if not items:
        raise document.error(("levels",), "found []; write one or more of all, coarsest, finest, names.", SpaceError)
    found: list[Levels] = []
    for i, item in enumerate(items):
        place: Location = ("levels", i) if isinstance(data, list) else ("levels",)
        try:
            levels = tuple(sorted(parse_levels(item, document, place)))
        except SpecError as error:
            raise SpaceError(str(error)) from None
        if levels in found:
            raise document.error(place, f"{levels_label(levels)!r} appears twice. Keep one.", SpaceError)
        found.append(levels)
    return tuple(found)


def _terms(data: Any, document: Document) -> tuple[int, int]:
    if isinstance(data, int) and not isinstance(data, bool):
        data = {"min": data, "max": data}
    if not isinstance(data, dict) or not set(data) <= {"min", "max"}:
        raise document.error(("terms",), f"found {data!r}; write a number, or {{min: 1, max: 2}}.", SpaceError)
    low: Any = data.get("min", 1)
    high: Any = data.get("max", max(2, low) if isinstance(low, int) else low)
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (low, high))
    if not whole or not 1 <= low <= high <= _MAX_TERMS:
        raise document.error(
            ("terms",), f"found {low!r} to {high!r}; allowed is 1 <= min <= max <= {_MAX_TERMS}.", SpaceError
        )
    return low, high


def _transforms(data: Any, document: Document) -> list[Slot]:
    if data == "all":
        data = dict.fromkeys(dict.fromkeys(row.group for row in TRANSFORMS.values() if row.group), "all")
    if not isinstance(data, dict):
        raise document.error(
            ("transforms",),
            f"found {data!r}; write {{slot name: [steps]}}, in the order of application.",
            SpaceError,
        )
    reserved = {"source", "distance", "gradient_ratio", "schedule", "level_weighting", "levels", "adapter"}
    slots = []
    for name, options in data.items():
        if name in reserved or "." in name or "(" in name:
            raise document.error(("transforms", name), f"a slot cannot be called {name!r}.", SpaceError)
        slots.append(_slot(name, "transform", options, document, ("transforms", name)))
    return slots


def _slot(name: str, kind: Kind, data: Any, document: Document, location: Location) -> Slot:
    if data == "all":
        data = _all(name, kind)
    if not isinstance(data, list) or not data:
        raise document.error(location, f"found {data!r}; write a list of one or more {kind}s, or 'all'.", SpaceError)
    options: list[Option] = []
    for i, item in enumerate(data):
        for option in _options(item, kind, document, (*location, i)):
            if any(option.label == other.label for other in options):
                raise document.error((*location, i), f"{option.label!r} appears twice. Keep one.", SpaceError)
            options.append(option)
    return Slot(name, kind, tuple(options))


def _all(name: str, kind: Kind) -> list[str]:
    if kind == "source":
        return list(SOURCES)
    if kind == "distance":
        return list(DISTANCES)
    return [IDENTITY, *(row.name for row in TRANSFORMS.values() if row.group == name)]


def _options(item: Any, kind: Kind, document: Document, location: Location) -> list[Option]:
    """Read an item of a list: one option, or an option for each combination of the choices of its parameters."""
    if item is None or item == IDENTITY:
        if kind != "transform":
            raise document.error(location, f"a {kind} cannot be 'none'.", SpaceError)
        return [Option(Step(IDENTITY))]
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        raise document.error(
            location, f"found {item!r}; write a name, or {{name: {{parameter: numbers}}}}.", SpaceError
        )
    [(name, params)] = item.items()
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise document.error(
            location, f"the parameters of {name!r} are {params!r}; write {{name: numbers}}.", SpaceError
        )
    try:
        operator = operator_of(kind, name)
        only: tuple[Layout, ...] = ()
        if "only" in params and kind != "source":
            only = _only(params["only"], operator, document, (*location, name, "only"))
            params = {parameter: value for parameter, value in params.items() if parameter != "only"}
        domains: dict[str, Domain] = {}
        for parameter, value in params.items():
            operator.parameter(parameter)
            domains[parameter] = parse_domain(value, document, (*location, name, parameter), positive=False)
            for number in _ends(domains[parameter]):
                Step.of(name, **{parameter: number}).checked(kind)
    except SpecError as error:
        raise document.error(location, str(error), SpecError) from None
    free = tuple((parameter, domain) for parameter, domain in domains.items() if isinstance(domain, Range))
    chosen = {parameter: domain.values for parameter, domain in domains.items() if isinstance(domain, Choices)}
    return [
        Option(Step.of(name, **dict(zip(chosen, values, strict=True))), free, only)
        for values in itertools.product(*chosen.values())
    ]


def _only(data: Any, operator: Operator, document: Document, location: Location) -> tuple[Layout, ...]:
    """Read the layouts to which an option is restricted, a word or a list; return them in the operator's order."""
    words = data if isinstance(data, list) else [data]
    if not words:
        raise document.error(location, "found nothing; name a layout, or leave 'only' out.", SpaceError)
    for word in words:
        if word not in operator.takes:
            raise document.error(location, one_of(str(word), operator.takes, noun="layout"), SpaceError)
    return tuple(layout for layout in operator.takes if layout in words)


def _ends(domain: Domain) -> tuple[float, ...]:
    return (domain.low, domain.high) if isinstance(domain, Range) else domain.values


def _refuse_unreachable(space: Space, data: dict[str, Any], document: Document) -> None:
    for slot, option in unreachable_options(space):
        location: Location
        location = ("transforms", slot.name) if slot.kind == "transform" else (f"{slot.kind}s",)
        if location[0] not in data:
            location = ()
        raise document.error(
            location,
            f"no term of this space can use {slot.kind} '{option.label}': {_why(space, slot, option)}",
            SpaceError,
        )


def _why(space: Space, slot: Slot, option: Option) -> str:
    """Return the first reason why ``option`` cannot be used, in the simplest term that contains it."""
    if option.step.name == IDENTITY:
        return "each term needs another step here. Remove 'none'."
    if option.only:
        return f"nothing gives it {' or '.join(option.only)}, to which it is restricted, or nothing can follow it."
    index = space.slots.index(slot)
    state = FlowState()
    for other in space.slots[:index]:
        if other.kind != "transform" or all(o.step.name != IDENTITY for o in other.options):
            first = other.options[0].step
            state = flow(state, operator_of(other.kind, first.name), first.settings(other.kind))
    try:
        state = flow(state, operator_of(slot.kind, option.step.name))
        for later in space.slots[index + 1 :]:
            if later.kind == "distance":
                flow(state, operator_of("distance", later.options[0].step.name))
    except SpecError as error:
        return str(error)
    return "nothing that the space offers can follow it."


__all__ = ["DEFAULT_SPACE", "space_from_document"]
