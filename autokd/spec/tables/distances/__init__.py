"""Distances: how far the student is from the teacher. One table a family of classes."""

from __future__ import annotations

from autokd.spec.tables.distances import (
    boxes,
    contrastive,
    correlations,
    divergences,
    elementwise,
    logits,
    relative_boxes,
    sums,
    vectors,
)

# The order of the families, and of the rows in each, is the order of options in a space and of proposals of a search:
# recorded searches depend on it.
FAMILIES = (vectors, logits, boxes, contrastive, elementwise, correlations, divergences, sums, relative_boxes)

__all__ = ["FAMILIES"]
