"""The reference of operators, made from the tables: ``python -m autokd.spec.reference > docs/operators.md``."""

from __future__ import annotations

from collections.abc import Mapping

from autokd.spec.operator import Operator
from autokd.spec.vocabulary import DISTANCES, SOURCES, TRANSFORMS

_INTRODUCTION = """\
# Operators

*Made by `python -m autokd.spec.reference > docs/operators.md`; a test keeps it so. Do not edit.*

A term is `source -> transformations -> distance`, weighted. `x` is what flows in, `s` and `t` are student and teacher
after the transformations; `_c` runs over channels, `_s` over cells, `_b` over the batch. What may follow what is
decided by layouts (*takes*, *gives*) and by effects: see the head of `autokd/spec/operator.py`.
"""


def reference() -> str:
    """The whole page."""
    sections = [
        ("Sources", "Where the knowledge comes from.", SOURCES),
        ("Transformations", "Applied to student and teacher together, in order.", TRANSFORMS),
        ("Distances", "Zero at equality, never below.", DISTANCES),
    ]
    return _INTRODUCTION + "".join(_section(*section) for section in sections)


def _section(title: str, words: str, table: Mapping[str, Operator]) -> str:
    head = "| name | formula | meaning | parameters | takes -> gives | paper |\n|---|---|---|---|---|---|\n"
    return f"\n## {title}\n\n{words}\n\n{head}" + "".join(_row(row) for row in table.values())


def _row(row: Operator) -> str:
    parameters = "; ".join(
        f"`{p.name}` = {p.default:g}, in [{p.low:g}, {p.high:g}]: {p.meaning}" for p in row.parameters
    )
    gives = "same" if row.gives_same else row.gives
    flow = {"source": row.gives, "distance": " or ".join(row.takes)}.get(
        row.kind, f"{' or '.join(row.takes)} -> {gives}"
    )
    text = row.formula
    for parameter in row.parameters:
        text = text.replace("{" + parameter.name + "}", f"<{parameter.name}>")
    cells = (f"`{row.name}`", f"`{text}`", row.meaning, parameters or "none", flow, row.paper)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    print(reference(), end="")
