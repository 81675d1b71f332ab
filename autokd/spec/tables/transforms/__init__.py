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
    memory,
    non_local,
    normalizations,
    pointwise,
    region_relations,
    softmax,
    spatial_matching,
    superpixels,
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
    memory,
    spatial_matching,
    superpixels,
)

__all__ = ["FAMILIES"]
