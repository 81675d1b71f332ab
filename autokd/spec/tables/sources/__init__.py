"""Sources: what a term compares of student and teacher. One table a family of classes."""

from __future__ import annotations

from autokd.spec.tables.sources import (
    balanced_regions,
    cell_relations,
    crossed_predictions,
    maps,
    predictions,
    prototypes,
    queries,
    region_contrast,
    semantic_guided,
    teacher_weighted,
)

# The order of the families, and of the rows in each, is the order of options in a space and of proposals of a search:
# recorded searches depend on it.
FAMILIES = (
    maps,
    semantic_guided,
    prototypes,
    predictions,
    crossed_predictions,
    region_contrast,
    teacher_weighted,
    queries,
    cell_relations,
    balanced_regions,
)

__all__ = ["FAMILIES"]
