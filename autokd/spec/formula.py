"""A distiller as a formula for readers."""

from __future__ import annotations

from autokd.spec.distiller_spec import DistillerSpec
from autokd.spec.operator import Kind
from autokd.spec.terms import ALL_LEVELS, Schedule, Step, TermSpec
from autokd.spec.vocabulary import IDENTITY, operator_of

_ADAPTERS = {"mlp": "the student's maps pass two 1x1 convolutions with a ReLU between them"}


def formula(spec: DistillerSpec) -> str:
    """Return the distiller in one line, "40 x l2(standardize(F))  +  ...", a summand for each term.

    Args:
        spec: the distiller.

    Returns:
        Summands with "x" after a relative and "*" after an absolute weight.
    """
    return "  +  ".join(_term_formula(term) for term in spec.terms)


def formula_lines(spec: DistillerSpec) -> list[str]:
    """Return a line for each term, then one for each operator that occurs: its formula, meaning and paper.

    Args:
        spec: the distiller.

    Returns:
        Lines without line breaks; a line "where" separates terms and operators.
    """
    lines = [f"L = {_term_formula(spec.terms[0])}"]
    lines += [f"  + {_term_formula(term)}" for term in spec.terms[1:]]
    seen: dict[str, str] = {}
    for term in spec.terms:
        for kind, step in _steps(term):
            row = operator_of(kind, step.name)
            seen[row.name] = f"  {row.name}: {_filled(kind, step)}  -- {row.meaning} ({row.paper})"
        if term.adapter != "linear":
            seen[term.adapter] = f"  {term.adapter}: {_ADAPTERS[term.adapter]}"
    return [*lines, "where", *seen.values()]


_SCHEDULES: dict[Schedule, str] = {
    "constant": "",
    "linear_decay": "(1 - progress) ",
    "warm_up": "min(1, 10 progress) ",
    "cosine_decay": "(1 + cos(pi progress)) / 2 ",
    "off_after": "[progress < {off_after:g}] ",
}


def _term_formula(term: TermSpec) -> str:
    inner = _filled("source", term.source)
    if term.levels != ALL_LEVELS:
        inner = f"{inner}[{', '.join(term.levels)}]"
    if term.adapter != "linear":
        inner = f"{term.adapter}({inner})"
    for step in term.transforms:
        if step.name != IDENTITY:
            inner = _call(step, inner)
    weight = term.weight
    sign = {"relative": "x", "absolute": "*", "share": "of the gradient x"}[weight.kind]
    schedule = _SCHEDULES[weight.schedule].format(off_after=weight.off_after)
    level_weighting = "" if weight.level_weighting == "equal" else f"{weight.level_weighting}-weighted "
    return f"{weight.value:g} {sign} {schedule}{level_weighting}{_call(term.distance, inner)}"


def _call(step: Step, inner: str) -> str:
    settings = "".join(f"; {name}={value:g}" for name, value in step.params)
    return f"{step.name}({inner}{settings})"


def _filled(kind: Kind, step: Step) -> str:
    settings = {name: f"{value:g}" for name, value in step.settings(kind).items()}
    return operator_of(kind, step.name).formula.format(**settings)


def _steps(term: TermSpec) -> list[tuple[Kind, Step]]:
    transforms: list[tuple[Kind, Step]] = [("transform", step) for step in term.transforms if step.name != IDENTITY]
    return [("source", term.source), *transforms, ("distance", term.distance)]
