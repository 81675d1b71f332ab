"""The reference of operators, made from the tables: ``python -m autokd.spec.reference > docs/operators.md``."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from autokd.spec.needs import needs_text
from autokd.spec.operator import Operator
from autokd.spec.tables import distances, sources, transforms

_INTRODUCTION = """\
# Operators

*Made by `python -m autokd.spec.reference > docs/operators.md`; a test keeps it so. Do not edit.*

A term is `source -> transformations -> distance`, weighted. `x` is what flows in, `s` and `t` are student and teacher
after the transformations; `_c` runs over channels, `_s` over cells, `_b` over the batch. What may follow what is
decided by layouts (*takes*, *gives*) and by effects: see the head of `autokd/spec/operator.py`. A subsection is a
table, `autokd/spec/tables/KIND/NAME.py`, with the classes in `autokd/distill/KIND/NAME.py`.

*needs*: with fewer, the step is constant, so that its term teaches nothing. Classes are those of the data set; channels
are counted where they are classes (behind sources of class logits), samples where they are images or regions of a
batch, cells where they are those of a matrix of relations. What data and batches lack is left out of the space.
"""


def _as_code(formula: str) -> str:
    return f"`{formula}`"


def reference(show: Callable[[str], str] = _as_code) -> str:
    """Return the whole page: a section a kind, a subsection a family, a line a row of AutoKD's own vocabulary.

    Args:
        show: makes Markdown of a formula, whose parameters stand as ``<name>``.
    """
    return _INTRODUCTION + "".join(
        f"\n## {title}\n\n{words}\n" + "".join(_family(family, show) for family in kind.FAMILIES)
        for title, words, kind in (
            ("Sources", "What a term compares of student and teacher.", sources),
            ("Transformations", "Steps that student and teacher take together, in order.", transforms),
            ("Distances", "How far the student is from the teacher: 0 at equality, never below.", distances),
        )
    )


def _family(family: ModuleType, show: Callable[[str], str]) -> str:
    name = family.__name__.rpartition(".")[2].replace("_", " ").capitalize()
    head = "| name | formula | meaning | parameters | takes -> gives | needs | paper |\n|---|---|---|---|---|---|---|\n"
    return f"\n### {name}\n\n{family.__doc__}\n\n{head}" + "".join(_row(row, show) for row in family.ROWS)


def _row(row: Operator, show: Callable[[str], str]) -> str:
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
    cells = (f"`{row.name}`", show(text), row.meaning, parameters or "none", flow, needs_text(row) or "-", row.paper)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    print(reference(), end="")
