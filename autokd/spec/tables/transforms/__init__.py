"""Transformations: steps that student and teacher take together. One table a family of classes."""

from __future__ import annotations

from autokd.spec.tables.transforms import (
    adaptation,
    affine,
    attention,
    energies,
    frequencies,
    gram,
    joint_attention,
    learned_blocks,
    masks,
    non_local,
    normalizations,
    pointwise,
    region_relations,
    softmax,
    windows,
)

# The order of the families, and of the rows in each, is the order of options in a space and of proposals of a search:
# recorded searches depend on it.
FAMILIES = (
    attention,
    windows,
    joint_attention,
    masks,
    energies,
    learned_blocks,
    gram,
    non_local,
    region_relations,
    normalizations,
    pointwise,
    affine,
    softmax,
    frequencies,
    adaptation,
)

__all__ = ["FAMILIES"]
