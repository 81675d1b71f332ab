"""Superpixels: connected, alike cells of the teacher's map, of which the means are compared.

Legend: S samples, C channels, H x W cells, N = H * W, G superpixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import centers_of_cells
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.products import mixed, related
from autokd.distill.statistics import Weights
from autokd.distill.term_inputs import TermInputs

_ROUNDS = 5
"""Of the clustering; SLIC takes ten, of which the later ones move few cells."""
_NO_SPREAD = 1e-12


class Superpixels(Transform):
    """Each cell's vector becomes the mean over its superpixel, of student and teacher over the same cells.

    Layout map -> map. Superpixels are clusters of the teacher's cells by vector and place, as SLIC (TPAMI 2012) makes
    them of pixels: |f_i - f_g|^2 / (the map's variance) + ``compactness`` |p_i - p_g|^2, p in sides of a seed's
    square, by rounds of k-means from the means of the squares of ``side`` x ``side`` cells. Cells that do not count
    belong to none. As every cell has its superpixel's mean, a distance counts a superpixel by its size. After PointDC,
    arXiv:2304.08965, whose super-voxels pool the features of a cloud of points.
    """

    def __init__(self, context: BuildContext, side: int, compactness: float) -> None:
        super().__init__(context)
        self.side = side
        self.compactness = compactness

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        members = features.members_SHW
        sizes = features.teacher_SCHW.shape[2:]
        with torch.no_grad():
            counts_SN = _counts(features.teacher_SCHW, members)
            parts_SGN = superpixels(features.teacher_SCHW, counts_SN, self.side, self.compactness)
        sides = (features.student_SCHW, features.teacher_SCHW)
        student, teacher = (
            mixed(_means(x.flatten(2), parts_SGN), parts_SGN.to(x.dtype)).unflatten(2, sizes) for x in sides
        )
        return features.with_maps(student, teacher)


def superpixels(x_SCHW: Tensor, counts_SN: Tensor, side: int, compactness: float) -> Tensor:
    """Return which cells each superpixel has, (S, G, N): 1 for its cells, 0 for others and those that do not count.

    Args:
        x_SCHW: the map that is cut up.
        counts_SN: 1 for cells that count, 0 for others.
        side: cells of a seed's square, per side; the map has G squares, those at its edge smaller.
        compactness: weight of places beside vectors.
    """
    x_SCN, (height, width) = x_SCHW.flatten(2), x_SCHW.shape[2:]
    rows, columns = -(-height // side), -(-width // side)
    sizes_2 = x_SCHW.new_tensor([height, width])
    places_2N = (centers_of_cells(height, width, x_SCHW) * sizes_2 / side).T
    # One vector a cell, in which squared distances are those of vector and place together.
    weighted_S2N = (compactness**0.5 * places_2N).expand(len(x_SCN), -1, -1)
    joined_SDN = torch.cat([x_SCN * _scale(x_SCN, counts_SN), weighted_S2N], 1)
    label_SN = (places_2N[0].long() * columns + places_2N[1].long()).expand(len(x_SCN), -1)
    for _ in range(_ROUNDS):
        parts_SGN = _parts(label_SN, counts_SN, rows * columns)
        centers_SDG = _means(joined_SDN, parts_SGN)
        distances_SGN = centers_SDG.square().sum(1)[:, :, None] - 2 * mixed(centers_SDG.transpose(1, 2), joined_SDN)
        is_empty_SG1 = parts_SGN.sum(2, keepdim=True) == 0
        label_SN = distances_SGN.masked_fill(is_empty_SG1, torch.inf).argmin(1)
    return _parts(label_SN, counts_SN, rows * columns)


def _parts(label_SN: Tensor, counts_SN: Tensor, num: int) -> Tensor:
    return one_hot(label_SN, num).transpose(1, 2) * counts_SN[:, None]


def _means(x_SDN: Tensor, parts_SGN: Tensor) -> Tensor:
    """(S, D, G): the mean of each superpixel; 0 if it has no cell."""
    return related(x_SDN, parts_SGN.to(x_SDN.dtype)) / parts_SGN.sum(2)[:, None].clamp_min(1).to(x_SDN.dtype)


def _scale(x_SCN: Tensor, counts_SN: Tensor) -> Tensor:
    """(S, 1, 1): what scales vectors so that their mean squared distance from the sample's mean is 1."""
    counts_S1N = counts_SN[:, None]
    total_S11 = counts_S1N.sum(2, keepdim=True).clamp_min(1)
    mean_SC1 = (x_SCN * counts_S1N).sum(2, keepdim=True) / total_S11
    spread_S11 = ((x_SCN - mean_SC1).square().sum(1, keepdim=True) * counts_S1N).sum(2, keepdim=True) / total_S11
    return spread_S11.clamp_min(_NO_SPREAD).rsqrt()


def _counts(x_SCHW: Tensor, members_SHW: Weights) -> Tensor:
    if members_SHW is None:
        return torch.ones_like(x_SCHW[:, 0]).flatten(1)
    return (members_SHW > 0).flatten(1).to(x_SCHW.dtype)
