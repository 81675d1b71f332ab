"""Forms of terms: which operators fit together, by the signatures in their rows."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence

from autokd.errors import SpecError
from autokd.spec import DISTANCES, SOURCES, TRANSFORMS, DistillerSpec, FlowState, Operator, Step, TermSpec, Weight, flow

Form = tuple[str, tuple[str, ...], str]
"""The names of a term's source, transformations and distance."""


def spec_of(source: str, transforms: Sequence[str | Step], distance: str | Step, weight: Weight) -> DistillerSpec:
    """Return a distiller of one term; a name stands for the operator with its default parameters."""
    steps = tuple(step if isinstance(step, Step) else Step.of(step) for step in transforms)
    last = distance if isinstance(distance, Step) else Step.of(distance)
    return DistillerSpec((TermSpec(Step.of(source), steps, last, weight),))


def spec_of_all(forms: Iterable[Form], weight: Weight) -> DistillerSpec:
    """Return a distiller with a term for each form; terms of one source share what it computes."""
    return DistillerSpec(tuple(spec_of(*form, weight).terms[0] for form in forms))


def well_typed_forms(max_transforms: int, sources: Iterable[Operator] | None = None) -> Iterator[Form]:
    """Yield every form that the signatures allow, by walking the tables.

    Args:
        max_transforms: the most transformations of a term.
        sources: rows to begin with; None: all.
    """
    begins = list(SOURCES.values()) if sources is None else list(sources)
    for length in range(max_transforms + 1):
        for source, names, distance in itertools.product(
            begins, itertools.product(TRANSFORMS.values(), repeat=length), DISTANCES.values()
        ):
            if follows(source, *names, distance):
                yield source.name, tuple(row.name for row in names), distance.name


def covering_forms(source: str) -> list[Form]:
    """Return forms of ``source`` with at most one transformation in which everything that fits it occurs.

    The transformations take turns with the distances, so that few terms cover all.
    """
    chosen: list[Form] = []
    forms = well_typed_forms(1, [SOURCES[source]])
    for form in sorted(forms, key=_shuffled):
        transforms, distances = {f[1] for f in chosen}, {f[2] for f in chosen}
        if form[1] not in transforms or form[2] not in distances:
            chosen.append(form)
    return chosen


def forms_with(row: Operator) -> list[Form]:
    """Return forms in which the operator occurs: those that cover a source, or one form for each fitting source."""
    if row.kind == "source":
        return covering_forms(row.name)
    found: dict[str, Form] = {}
    for form in sorted(well_typed_forms(1), key=_shuffled):
        if row.name in (form[1] if row.kind == "transform" else form[2:]):
            found.setdefault(form[0], form)
    return list(found.values())


def _shuffled(form: Form) -> int:
    """A fixed order that mixes transformations and distances."""
    return zlib.crc32(repr(form).encode())


def follows(*rows: Operator | tuple[Operator, Step]) -> bool:
    """Return whether these operators may follow each other, with given parameters or their defaults."""
    state = FlowState()
    try:
        for item in rows:
            row, step = item if isinstance(item, tuple) else (item, Step.of(item.name))
            state = flow(state, row, step.settings(row.kind))
    except SpecError:
        return False
    return True
