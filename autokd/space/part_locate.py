"""Finds a distiller among sums of parts: which parts, at which strengths, and the decisions that lead to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

from autokd.errors import SpaceError
from autokd.space.domains import Choices
from autokd.space.locate import decisions_of as decisions_of_terms
from autokd.space.locate import path_of
from autokd.space.locate import validate as validate_terms
from autokd.space.part_space import ADD, FREE, STOP, AnySpace, Part, PartSpace, Summand
from autokd.spec import DistillerSpec, TermSpec, formula
from autokd.spec.terms import Schedule, rounded

_NEAR = 1e-3
"""Relative difference of equal weights: sums are written to six digits, of which a small summand has few. Strengths lie
further apart, and what was found is added up again."""

Weights = dict[TermSpec, float]
"""Term at a weight of 0.5 (any value that all kinds allow) -> its weight, or what is left of it."""


def decisions_of(space: AnySpace, spec: DistillerSpec) -> dict[str, Any]:
    """Return the decisions that lead to a spec: a trial's parameters, with which Optuna can enqueue it.

    Args:
        space: the space that offers the decisions.
        spec: a distiller; its canonical form is looked for.

    Returns:
        Parameter name -> value, in the order in which the space's ``walk`` asks for them.

    Raises:
        SpaceError: if the spec lies outside the space.
    """
    if not isinstance(space, PartSpace):
        return decisions_of_terms(space, spec)
    return decisions_of_sum(space, summands_of(space, spec))


def validate(space: AnySpace, spec: DistillerSpec) -> None:
    """Check that a spec lies in a space.

    Args:
        space: the space that offers the options.
        spec: a distiller; its canonical form is looked for.

    Raises:
        SpaceError: if it does not.
    """
    if isinstance(space, PartSpace):
        summands_of(space, spec)
    else:
        validate_terms(space, spec)


def summands_of(space: PartSpace, spec: DistillerSpec) -> list[Summand]:
    """Return the parts of which a distiller is the sum, in the order of the space.

    Args:
        space: the space that offers the parts.
        spec: a distiller; its canonical form is looked for.

    Raises:
        SpaceError: if it is no sum of as many parts as the space takes.
    """
    exact = spec.canonical()
    sums = _sums(space, _weights(exact.terms), space.max_parts)
    found = next((each for each in sums if len(each) >= space.min_parts and space.sum_of(each) == exact), None)
    if found is None:
        raise SpaceError(
            f"{formula(exact)} is no sum of {space.min_parts} to {space.max_parts} parts of this space, each at "
            f"{', '.join(space.strength_labels)} times its calibrated strength. Leave it out, or offer its presets and "
            "terms in 'space'."
        )
    order = [part.label for part in space.parts]
    return sorted(found, key=lambda each: order.index(each.part) if each.part in order else len(order))


def decisions_of_sum(space: PartSpace, summands: Sequence[Summand]) -> dict[str, Any]:
    """Return the decisions that lead to a sum of parts, which are taken in the order given.

    Args:
        space: the space that offers the parts.
        summands: parts of the space.
    """
    script = _Script(space, summands)
    space.walk(script)
    return script.decisions


def spec_of(space: AnySpace, decisions: Mapping[str, Any]) -> DistillerSpec:
    """Return the distiller to which decisions lead.

    Args:
        space: the space that offers them.
        decisions: parameter name -> value, as ``decisions_of`` returns them.
    """
    return space.walk(_Replay(decisions))


def nearest_summand(space: PartSpace, preset: str, gradient_ratio: float) -> Summand:
    """Return a preset as the part whose gradient ratio is nearest to a given one, as a factor.

    Args:
        space: the space that offers the parts.
        preset: name of the preset.
        gradient_ratio: the ratio, shared by the preset's terms.

    Raises:
        SpaceError: if the space does not offer the preset at a gradient ratio.
    """
    part = space.part(preset)
    if part is None or part.gradient_ratio is None:
        raise SpaceError(f"{preset} is no part of this space at a gradient ratio.")
    wanted = gradient_ratio / part.gradient_ratio
    return Summand(part.label, Choices(space.strengths).clip(wanted))


# ----------------------------------------------------------------------------------------- exact cover


def _weights(terms: Iterable[TermSpec]) -> Weights:
    found: Weights = {}
    for term in terms:
        exact = term.canonical()
        form = replace(exact, weight=replace(exact.weight, value=0.5))
        found[form] = found.get(form, 0.0) + term.weight.value
    return found


@lru_cache(maxsize=1024)
def _unit(part: Part, schedule: str) -> Weights:
    return _weights(part.scaled(1.0, schedule))


def _sums(space: PartSpace, left: Weights, most: int, taken: frozenset[str] = frozenset()) -> Iterator[list[Summand]]:
    """Yield the sums of at most ``most`` parts, none of presets taken, that make up what is left."""
    if not left:
        yield []
        return
    if not most:
        return
    first = min(left)
    for summand, part, terms in _holding(space, first, taken):
        rest = _less(left, terms)
        if rest is not None:
            for others in _sums(space, rest, most - 1, taken | {part.preset}):
                yield [summand, *others]
    if (free := _free(space, first, left[first])) is not None:
        rest = {form: value for form, value in left.items() if form != first}
        yield from ([free, *others] for others in _sums(space, rest, most - 1, taken))


def _holding(space: PartSpace, form: TermSpec, taken: frozenset[str]) -> Iterator[tuple[Summand, Part, Weights]]:
    """Yield every part with a term of a form, at each strength, with its weights."""
    for part in space.parts:
        if part.preset in taken:
            continue
        for schedule in space.schedules_of(part):
            unit = _unit(part, schedule)
            if form not in unit:
                continue
            for strength in space.strengths:
                yield (
                    Summand(part.label, strength, schedule),
                    part,
                    {each: weight * strength for each, weight in unit.items()},
                )


def _less(left: Weights, terms: Mapping[TermSpec, float]) -> Weights | None:
    """Return what is left without some terms; None if there is not as much."""
    rest = dict(left)
    for form, weight in terms.items():
        if form not in rest:
            return None
        if math.isclose(rest[form], weight, rel_tol=_NEAR):
            del rest[form]
        elif rest[form] > weight:
            rest[form] -= weight
        else:
            return None
    return rest


def _free(space: PartSpace, form: TermSpec, weight: float) -> Summand | None:
    """Return a term as a free one; None if the space does not offer it so."""
    if space.free is None or form.weight.kind != "relative" or form.weight.schedule not in space.schedules:
        return None
    assert isinstance(space.free.gradient_ratio, Choices), "free terms have one gradient ratio"
    ratio = float(space.free.gradient_ratio.values[0])
    strength = next((s for s in space.strengths if math.isclose(ratio * s, weight, rel_tol=_NEAR)), None)
    if strength is None:
        return None
    plain = replace(form.weight, value=rounded(ratio), schedule=cast(Schedule, space.free.schedules[0]))
    term = replace(form, weight=plain)
    try:
        return Summand(FREE, strength, form.weight.schedule, term, path_of(space.free, term, 0))
    except SpaceError:
        return None


class _Replay:
    """A chooser that makes known decisions."""

    def __init__(self, decisions: Mapping[str, Any]) -> None:
        self._decisions = decisions

    def categorical(self, name: str, options: tuple[str, ...]) -> str:
        return str(self._decisions[name])

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        return float(self._decisions[name])


class _Script:
    """A chooser that makes the decisions of a known sum, and records them by name."""

    def __init__(self, space: PartSpace, summands: Sequence[Summand]) -> None:
        self._space = space
        self._summands = summands
        self.decisions: dict[str, Any] = {}

    def categorical(self, name: str, options: tuple[str, ...]) -> str:
        prefix, _, rest = name.partition(".")
        answer = self._answer(int(prefix[1:]) - 1, rest)
        if answer not in options:
            raise SpaceError(f"the space does not offer {answer!r} at {name!r}; it has {', '.join(options)}.")
        self.decisions[name] = answer
        return answer

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        prefix, _, rest = name.partition(".")
        term = self._summands[int(prefix[1:]) - 1]
        assert self._space.free is not None, "free terms alone have numbers"
        assert term.term is not None, "it is a free term"
        [(_, value)] = decisions_of_one(self._space.free, term.term, rest).items()
        self.decisions[name] = min(max(float(value), low), high)
        return float(self.decisions[name])

    def _answer(self, index: int, rest: str) -> str:
        if rest == "more":
            return ADD if index < len(self._summands) else STOP
        summand = self._summands[index]
        part = self._space.part(summand.part)
        kind = rest.partition("(")[0]
        if kind == "family":
            return FREE if part is None else part.family
        if kind == "strength":
            return f"{summand.strength:g}"
        if kind == "schedule":
            return summand.schedule
        if kind.startswith("part."):
            return summand.part
        assert self._space.free is not None, "every other decision is a free term's"
        assert summand.term is not None, "it is a free term"
        [(_, value)] = decisions_of_one(self._space.free, summand.term, rest).items()
        return str(value)


def decisions_of_one(free: Any, term: TermSpec, rest: str) -> dict[str, Any]:
    """Return one decision of a free term, as its own space asks for it.

    Args:
        free: the space of free terms.
        term: the term.
        rest: name of the decision behind the part's number, "free.source".
    """
    wanted = rest.removeprefix(f"{FREE}.").partition("(")[0]
    every = decisions_of_terms(free, DistillerSpec((term,)))
    return {name: value for name, value in every.items() if name.removeprefix("t1.").partition("(")[0] == wanted}


__all__ = ["decisions_of", "decisions_of_sum", "nearest_summand", "spec_of", "summands_of", "validate"]
