"""Matrices of relations as feature pairs.

A matrix of relations is a scalar map: each of its rows is a sample and the columns are the cells, so that ``l2_cells``
normalizes rows and a softmax over cells turns a row into a distribution. An entry counts if its row and its column do:
cells outside the region and absent samples belong to no relation.

Legend: S samples (images, regions or patches), C channels, H x W cells, N = H * W, R rows, M columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.regions import Given
from autokd.spec.operator import SCALAR_MAP


def as_relations(
    features: FeaturePair, student_RM: Tensor, teacher_RM: Tensor, weights_RM: Tensor | None
) -> FeaturePair:
    """Return a matrix of relations as a feature pair: a row is a sample, a column is a cell."""
    weights_R1M = None if weights_RM is None else weights_RM[:, None]
    return as_scalar_map(features, student_RM[:, None], teacher_RM[:, None], weights_R1M)


def as_scalar_map(
    features: FeaturePair, student_RHM: Tensor, teacher_RHM: Tensor, weights_RHM: Tensor | None
) -> FeaturePair:
    """Return a scalar map of H x M cells for each row as a feature pair.

    If there are no cells (a batch without boxes) it gets one of weight 0: later steps need a map with a cell.
    """
    height, width = (max(length, 1) for length in student_RHM.shape[1:])
    missing = (0, width - student_RHM.shape[2], 0, height - student_RHM.shape[1])
    if any(missing):
        weights_RHM = torch.zeros_like(teacher_RHM) if weights_RHM is None else weights_RHM
        student_RHM, teacher_RHM, weights_RHM = (
            functional.pad(x, missing) for x in (student_RHM, teacher_RHM, weights_RHM)
        )
    return features.with_maps(
        student_RHM[:, None],
        teacher_RHM[:, None],
        grid=Grid(height, width),
        region=None if weights_RHM is None else Given(weights_RHM),
        layout=SCALAR_MAP,
        instances=None,
    )


def vectors(x_SCHW: Tensor, members_SHW: Tensor | None) -> Tensor:
    """Return each sample as one vector, (S, C * N); cells that do not count are 0."""
    return (x_SCHW if members_SHW is None else x_SCHW * members_SHW[:, None]).flatten(1)


def outer(weights_S: Tensor) -> Tensor:
    """Return the outer product of weights with themselves, (S, S)."""
    return weights_S[:, None] * weights_S
