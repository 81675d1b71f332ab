"""Whether a pair of detectors and its data supply what an operator needs: taps by name, classes, objects and images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from autokd.spec import Counts, DistillerSpec, Operator, Step, operator_of, unmet_needs
from autokd.spec.needs import UNKNOWN
from autokd.spec.operator import Kind


def why_lacking(
    operator: Operator, student: Collection[str], teachers: Sequence[Collection[str]], unpaired: Mapping[str, str]
) -> str:
    """Return why detectors cannot supply an operator, as the end of a sentence; empty if they can.

    Args:
        operator: the row of the vocabulary.
        student: names of the student's taps.
        teachers: names of each teacher's taps; every teacher must supply the operator.
        unpaired: taps that student and teacher have but that cannot be compared -> the reason; "cells" if a teacher's
            candidates do not lie on cells.
    """
    if missing := _missing(operator, student, teachers):
        lacking = "this pair lacks" if len(teachers) == 1 else "these detectors lack"
        return f"needs {', '.join(missing)}, which {lacking}"
    if operator.needs_cells_of_teacher and "cells" in unpaired:
        return f"weighs cells by the teacher's predictions, but {unpaired['cells']}"
    compared = (*operator.needs_taps, *(tap for tap in operator.needs_of_teacher if tap == "head"))
    return next((f"compares {tap}, but {unpaired[tap]}" for tap in compared if tap in unpaired), "")


def lacks_of(
    spec: DistillerSpec,
    student: Collection[str],
    teachers: Sequence[Collection[str]],
    unpaired: Mapping[str, str],
    counts: Counts = UNKNOWN,
) -> tuple[str, ...]:
    """Return a sentence for each step of a distiller that detectors or data cannot supply, without repetitions.

    Args:
        spec: the distiller.
        student: names of the student's taps.
        teachers: names of each teacher's taps; every teacher must supply each step.
        unpaired: taps that student and teacher have but that cannot be compared -> the reason; "cells" if a teacher's
            candidates do not lie on cells.
        counts: classes, objects and images that trainings have.
    """
    found: dict[str, None] = {}
    for term in spec.canonical().terms:
        steps: list[tuple[Kind, Step]] = [("source", term.source), ("distance", term.distance)]
        steps[1:1] = [("transform", step) for step in term.transforms]
        for kind, step in steps:
            if why := why_lacking(operator_of(kind, step.name), student, teachers, unpaired):
                found[f"{kind} '{step.name}' {why}"] = None
        found |= dict.fromkeys(unmet_needs(term, counts))
    return tuple(found)


def _missing(operator: Operator, student: Collection[str], teachers: Sequence[Collection[str]]) -> tuple[str, ...]:
    """Return the missing taps, such as "the student's boxes" or, with several teachers, "teacher 2's boxes"."""
    if len(teachers) == 1:
        return operator.missing(student, teachers[0])
    found = (
        tap.replace("the teacher's", f"teacher {i}'s")
        for i, teacher in enumerate(teachers, start=1)
        for tap in operator.missing(student, teacher)
    )
    return tuple(dict.fromkeys(found))
