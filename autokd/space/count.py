"""Enumerates and counts the distillers of a space."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import comb

from autokd.space.domains import Choices
from autokd.space.slots import Option, Path
from autokd.space.space import Space, weight_of
from autokd.spec import DistillerSpec, FlowState, Step, TermSpec, Weight
from autokd.spec.operator import Kind, Number
from autokd.spec.vocabulary import IDENTITY

_MIDDLE_GRADIENT_RATIO = 40.0
"""The gradient ratio that stands for a range of gradient ratios; presets are tried at it by default."""


def enumerate_paths(space: Space) -> Iterator[Path]:
    """Yield every well-typed path of one term.

    Args:
        space: the space that offers the options.
    """
    yield from _paths_from(space, 0, FlowState(), ())


def enumerate_forms(space: Space) -> list[TermSpec]:
    """Return every distinct term, with weight 1 and the first adapter; a range of numbers takes its low end.

    Terms that are read on other levels are distinct.

    Args:
        space: the space that offers the options.
    """
    return [
        replace(form, levels=levels, adapter=space.adapters_of(form.source)[0]).canonical()
        for form in _bare_forms(space)
        for levels in space.levels_of(form.source)
    ]


def enumerate_specs(space: Space) -> Iterator[DistillerSpec]:
    """Yield every canonical spec of the space, in a fixed order.

    Ranges are not enumerated: a parameter with a range takes its low end, a range of gradient ratios a middle gradient
    ratio.

    Args:
        space: the space that offers the options.
    """
    forms = _bare_forms(space)
    for n in range(space.min_terms, space.max_terms + 1):
        for chosen in itertools.combinations(forms, n):
            for terms in itertools.product(*(_variants_of(space, form) for form in chosen)):
                yield DistillerSpec(tuple(terms)).canonical()


def count_specs(space: Space) -> int:
    """Return the number of distinct canonical specs; a range of numbers counts as one.

    Args:
        space: the space that offers the options.
    """
    num_weights = len(_gradient_ratios(space)) * len(space.schedules)
    forms = Counter(
        num_weights
        * len(space.level_weightings_of(steps[0]))
        * len(space.levels_of(steps[0]))
        * len(space.adapters_of(steps[0]))
        for steps in _distinct_steps(space)
    )
    # A spec takes n forms, and a weight, levels and an adapter for each. The number of such sets is the coefficient of
    # x^n in the product of (1 + w x) over all forms, w being the number of their choices; forms with equal w are
    # multiplied in at once, by the binomial theorem, since enumerating the sets of a large space would never end.
    coefficients = [1] + [0] * space.max_terms
    for weights, num_forms in forms.items():
        of_kind = [comb(num_forms, n) * weights**n for n in range(space.max_terms + 1)]
        coefficients = [sum(coefficients[i] * of_kind[n - i] for i in range(n + 1)) for n in range(space.max_terms + 1)]
    return sum(coefficients[space.min_terms :])


def _paths_from(space: Space, index: int, state: FlowState, path: Path) -> Iterator[Path]:
    if index == len(space.slots):
        yield path
        return
    for successor in space.successors(index, state):
        if successor.num_completions:
            yield from _paths_from(space, index + 1, successor.state, (*path, successor.label))


def _bare_forms(space: Space) -> list[TermSpec]:
    """Return every distinct term with weight 1 and all levels."""
    weight = Weight("relative", 1.0)
    return [TermSpec(steps[0], steps[1:-1], steps[-1], weight).canonical() for steps in _distinct_steps(space)]


def _distinct_steps(space: Space) -> dict[tuple[Step, ...], None]:
    """Return the steps of every form; paths that differ only in where they do nothing give the same steps."""
    written: list[dict[str, tuple[Step, ...]]] = [
        {option.label: _steps_of(slot.kind, option) for option in slot.options} for slot in space.slots
    ]
    paths = (tuple(table[label] for table, label in zip(written, path)) for path in enumerate_paths(space))
    # A dict, not a set: it keeps the order of the paths, on which the order of forms and specs rests.
    return {tuple(itertools.chain.from_iterable(steps)): None for steps in paths}


def _steps_of(kind: Kind, option: Option) -> tuple[Step, ...]:
    if option.step.name == IDENTITY:
        return ()
    free = {name: domain.low for name, domain in option.free}
    return (Step.of(option.step.name, **(dict(option.step.params) | free)).checked(kind),)


def _gradient_ratios(space: Space) -> tuple[Number, ...]:
    if isinstance(space.gradient_ratio, Choices):
        return space.gradient_ratio.values
    return (space.gradient_ratio.clip(_MIDDLE_GRADIENT_RATIO),)


def _variants_of(space: Space, form: TermSpec) -> list[TermSpec]:
    """Return the term with each weight, levels and adapter that the space offers for it."""
    source = form.source
    choices = itertools.product(
        _gradient_ratios(space),
        space.schedules,
        space.level_weightings_of(source),
        space.levels_of(source),
        space.adapters_of(source),
    )
    return [
        replace(form, weight=weight_of(float(value), schedule, word), levels=levels, adapter=adapter)
        for value, schedule, word, levels, adapter in choices
    ]
