"""The vocabulary: the registry of operators with AutoKD's rows, and its tables SOURCES, TRANSFORMS, DISTANCES.

The rows are in ``tables``, by family; ``operator`` documents its fields. A row states what an operator takes and
gives, what it may not follow, its parameters, its formula, its paper, and its class (imported only when a distiller
is built). The space, the canonical form, the formula, the reference in ``docs/`` and the conformance suite read these
rows, so adding an operator is a class, a row and a golden value in its test. No module here imports torch.
"""

from __future__ import annotations

from autokd.spec.operator import Kind, Operator
from autokd.spec.registry import OperatorRegistry
from autokd.spec.tables import distances, sources, transforms

REGISTRY = OperatorRegistry(
    row for kind in (sources, transforms, distances) for family in kind.FAMILIES for row in family.ROWS
)
"""The one registry of a process."""

SOURCES = REGISTRY.table("source")
TRANSFORMS = REGISTRY.table("transform")
DISTANCES = REGISTRY.table("distance")

IDENTITY = "none"
"""The step that does nothing; it may be written and vanishes in the canonical form."""


def operator_of(kind: Kind, name: str) -> Operator:
    """Return a row of the vocabulary.

    Args:
        kind: "source", "transform" or "distance".
        name: the operator's name, unique in its kind.

    Raises:
        SpecError: with the nearest name, if the kind has no such row.
    """
    return REGISTRY.find(kind, name)
