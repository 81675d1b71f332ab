"""The tables of operators, one a kind: SOURCES, TRANSFORMS, DISTANCES. No torch here.

The rows stand in ``tables``, by family; ``operator`` says what a row means. A row tells what an operator takes and
gives, what it may not follow, which numbers it has, how a person writes it, where it was published, and where its
class lives (imported only when a distiller is built). The space, the canonical form, the formula, the
reference in ``docs/`` and every conformance suite read these rows, so adding an operator is a class, a row and
a golden value in its test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata

from autokd.errors import SpecError, one_of
from autokd.spec.operator import Kind, Operator
from autokd.spec.tables import (
    contrast,
    distances,
    global_steps,
    maps,
    predictions,
    prototypes,
    relations,
    semantic_guided,
    spatial_steps,
)

_FAMILIES = (
    maps,
    semantic_guided,
    prototypes,
    predictions,
    contrast,
    spatial_steps,
    relations,
    global_steps,
    distances,
)
_ROWS: tuple[Operator, ...] = tuple(row for family in _FAMILIES for row in family.ROWS)


def _table(kind: Kind) -> dict[str, Operator]:
    return {row.name: row for row in _ROWS if row.kind == kind}


SOURCES = _table("source")
TRANSFORMS = _table("transform")
DISTANCES = _table("distance")

_TABLES: Mapping[Kind, dict[str, Operator]] = {"source": SOURCES, "transform": TRANSFORMS, "distance": DISTANCES}
assert sum(map(len, _TABLES.values())) == len(_ROWS), "two rows of one kind have one name"

IDENTITY = "none"
"""The step that does nothing; it may be written and vanishes in the canonical form."""


def operator_of(kind: Kind, name: str) -> Operator:
    """Return the row ``name`` of a kind; SpecError with the nearest name where there is none."""
    _load_third_parties()
    table = _TABLES[kind]
    if name not in table:
        raise SpecError(one_of(name, table, noun=kind))
    return table[name]


def all_operators() -> Iterator[Operator]:
    """Every row of every table, third parties' included."""
    _load_third_parties()
    for table in _TABLES.values():
        yield from table.values()


_third_parties_loaded = False


def _load_third_parties() -> None:
    """Add the rows that installed packages offer under the entry point group ``autokd.operators``."""
    global _third_parties_loaded
    if _third_parties_loaded:
        return
    _third_parties_loaded = True
    for entry_point in metadata.entry_points(group="autokd.operators"):
        for row in entry_point.load():
            table = _TABLES[row.kind]
            if row.name in table:
                raise SpecError(
                    f"the package behind the entry point {entry_point.name!r} offers a {row.kind} {row.name!r}, "
                    "which exists already. Rename it there."
                )
            table[row.name] = row
