"""The list of checks over a table of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from autokd.spec import REGISTRY
from autokd.spec.operator import Operator
from autokd.testing.operators import distances, effects, precision, terms, transforms
from autokd.testing.operators.forms import covering_forms


@dataclass(frozen=True)
class Check:
    """One property of one operator; ``str`` names both."""

    name: str
    """Operator and property, for the test's id."""
    run: Callable[[], None]
    """The check itself; it raises AssertionError."""
    rows: tuple[Operator, ...]
    """Rows that are registered while the check runs."""

    def __call__(self) -> None:
        """Run the check.

        Raises:
            AssertionError: naming the operator, what it does not keep, and the case.
        """
        with REGISTRY.registered(*self.rows):
            self.run()

    def __str__(self) -> str:
        return self.name


def operator_checks(rows: Iterable[Operator]) -> list[Check]:
    """Return every check that applies to ``rows``.

    A distance is 0 with gradient 0 at equality, positive elsewhere, and finite with a finite gradient for batches of
    one image, odd sizes, single cells and regions without a cell; a transformation changes something, treats both sides
    alike and gives its declared layout; a source gives connected pairs of equal shape. Declared effects are true, and
    undeclared ones absent. Whole terms teach the student, never the teacher, and give the same value again; on float16
    and bfloat16 taps under autocast they are those of float64 up to rounding (on a CPU, and on a GPU where there is
    one; ``unittest.SkipTest`` elsewhere), and no step computes in float64.

    Args:
        rows: rows of the vocabulary, AutoKD's or another package's; they need not be installed.

    Returns:
        Checks to call one by one, in the order of the rows.
    """
    table = tuple(rows)
    with REGISTRY.registered(*table):
        covered = {name for row in table if row.kind == "source" for name in _names_covered_by(row)}
    checks = []
    for row in table:
        runs = list(_checks_of_kind(row))
        if row.kind == "source" or (row.kind, row.name) not in covered:
            runs += [(check.__name__, partial(check, row)) for check in terms.CHECKS]
            runs += [(name, partial(check, row)) for name, check in precision.CHECKS]
        checks += [Check(f"{row.name}-{name}", run, table) for name, run in runs]
    return checks


def _checks_of_kind(row: Operator) -> Iterable[tuple[str, Callable[[], None]]]:
    on_layouts = {"transform": transforms.CHECKS, "distance": distances.CHECKS}.get(row.kind, ())
    alone = {
        "source": terms.CHECKS_OF_SOURCES,
        "transform": effects.CHECKS_OF_TRANSFORMS,
        "distance": effects.CHECKS_OF_DISTANCES,
    }[row.kind]
    for check in on_layouts:
        for layout in row.takes:
            yield f"{layout}-{check.__name__}", partial(check, row, layout)
    for one in alone:
        yield one.__name__, partial(one, row)


def _names_covered_by(source: Operator) -> Iterable[tuple[str, str]]:
    """The kinds and names of operators that occur in the terms of a source's own checks."""
    for _, names, distance in covering_forms(source.name):
        yield "distance", distance
        yield from (("transform", name) for name in names)


__all__ = ["Check", "operator_checks"]
