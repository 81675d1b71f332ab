"""Random well-typed terms, drawn by walking the vocabulary with its signatures."""

from __future__ import annotations

from hypothesis import strategies as st

from autokd.spec import DISTANCES, SOURCES, TRANSFORMS, Operator, Step, TermSpec, Weight
from autokd.testing.operators.forms import follows


def steps(row: Operator) -> st.SearchStrategy[Step]:
    """The operator with any parameters of its ranges."""
    numbers = {
        parameter.name: st.integers(parameter.low, parameter.high)
        if parameter.is_integer
        else st.floats(parameter.low, parameter.high)
        for parameter in row.parameters
    }
    return st.fixed_dictionaries(numbers).map(lambda params: Step.of(row.name, **params))


@st.composite
def terms(draw: st.DrawFn) -> TermSpec:
    source = draw(st.sampled_from(list(SOURCES.values())))
    taken = [(source, draw(steps(source)))]
    for _ in range(draw(st.integers(0, 4))):
        allowed = [row for row in TRANSFORMS.values() if follows(*taken, row) and any_distance(*taken, row)]
        if not allowed:
            break
        row = draw(st.sampled_from(allowed))
        item = (row, draw(steps(row)))
        if any_distance(*taken, item):
            taken.append(item)
    distance = draw(st.sampled_from(any_distance(*taken)))
    kind = draw(st.sampled_from(["relative", "absolute"]))
    weight = Weight(kind, draw(st.floats(0.1, 100)))
    transforms = tuple(step for _, step in taken[1:])
    return TermSpec(taken[0][1], transforms, draw(steps(distance)), weight)


def any_distance(*taken: Operator | tuple[Operator, Step]) -> list[Operator]:
    """Distances that may end a term that begins so."""
    return [row for row in DISTANCES.values() if follows(*taken, row)]
