"""Relations between the regions of a batch, and between their classes.

A region is the vector of all its numbers (C * size * size). Padding belongs to no pair, no triplet and no class; all
other regions count. A single region, or a single class, has no relation and counts nowhere.

Legend: S regions, C channels, H x W cells of a region, D = C * H * W, K classes, T regions of triplets.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.regions import Instances
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.products import self_related
from autokd.distill.relation_matrices import as_relations, as_scalar_map, outer, vectors
from autokd.distill.statistics import log_softmax_over_cells, unit
from autokd.distill.term_inputs import TermInputs
from autokd.spec.operator import CELL_DISTRIBUTION

_NO_LENGTH = 1e-12
"""A distance shorter than this is 0: the regions are equal."""


class PairDistances(Transform):
    """||v_i - v_j|| / mu for each two regions, mu the mean over all pairs i != j of the batch.

    Layout regions -> scalar_map (S, 1, 1, S); the diagonal does not count. RKD, arXiv:1904.05068, section 3.2.1.
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        weights_SS = _off_diagonal(_present(features).to(features.student_SCHW.dtype))
        student, teacher = (self._relative(x, weights_SS) for x in _vectors(features))
        return as_relations(features, student, teacher, weights_SS)

    @staticmethod
    def _relative(vectors_SD: Tensor, weights_SS: Tensor) -> Tensor:
        distances_SS = _distances(vectors_SD) * weights_SS
        mean = distances_SS.sum() / weights_SS.sum().clamp_min(1)
        differs = mean > _NO_LENGTH
        return distances_SS * torch.where(differs, 1 / torch.where(differs, mean, 1.0), 0.0)


class TripletAngles(Transform):
    """The cosine of the angle at j between i and k, <e_ij, e_kj> with e_ij = (v_i - v_j) / ||v_i - v_j||.

    Layout regions -> scalar_map (T, 1, T, T): the sample is j, the cells are the pairs (i, k); the three must
    differ to count. T is ``most`` or the number of samples, if that is less: the work grows with T^3. Chosen are
    the first regions of each image, the images taking turns. RKD, arXiv:1904.05068,
    section 3.2.2.
    """

    def __init__(self, context: BuildContext, most: int) -> None:
        super().__init__(context)
        self.most = most

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        present_S = _present(features)
        chosen_T = _in_turns(present_S, _instances(features))[: self.most]
        student, teacher = (self._angles(x[chosen_T]) for x in _vectors(features))
        present_T = present_S[chosen_T].to(student.dtype)
        pairs_TT = _off_diagonal(present_T)
        weights_TTT = pairs_TT[:, :, None] * pairs_TT[:, None] * pairs_TT
        return as_scalar_map(features, student, teacher, weights_TTT)

    @staticmethod
    def _angles(vectors_TD: Tensor) -> Tensor:
        """(T, T, T): of j, i and k; 0 if two of them are equal."""
        # By the law of cosines from distances alone, a pair of near duplicates would lose its angle to cancellation.
        directions_TTD = unit(vectors_TD - vectors_TD[:, None], (2,))
        return self_related(directions_TTD)


class WithinClass(Transform):
    """||v_i - c_i|| for each region, c_i the mean of the batch's regions of its class: the spread within classes.

    Layout regions -> scalar_map (1, 1, 1, S). The only region of its class does not count. Distances are as they
    are: ``l2_cells`` removes their scale. After IFVD, ECCV 2020 (variation within a class), with distances for
    cosines.
    """

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        instances = _instances(features)
        present_S = _present(features) & (instances.labels_S >= 0)
        same_SS = outer(present_S) & (instances.labels_S[:, None] == instances.labels_S)
        count_S1 = same_SS.sum(1, keepdim=True)
        student, teacher = (self._distances(x, same_SS.to(x.dtype), count_S1) for x in _vectors(features))
        weights_1S = (count_S1 > 1).to(student.dtype).T
        return as_relations(features, student[None], teacher[None], weights_1S)

    @staticmethod
    def _distances(vectors_SD: Tensor, same_SS: Tensor, count_S1: Tensor) -> Tensor:
        center_SD = same_SS @ vectors_SD / count_S1.clamp_min(1)
        return _roots((vectors_SD - center_SD).square().sum(1))


class BetweenClass(Transform):
    """||c_k - c_l|| for each two classes, c_k the mean of the batch's regions of class k: distances between classes.

    Layout regions -> scalar_map (K, 1, 1, K). The diagonal, and classes that the batch does not show, do not count.
    Distances are as they are: ``l2_cells`` removes the scale of a row. RKD's pairs (arXiv:1904.05068) between class
    centers.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        self.num_classes = context.num_classes

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        labels_S = torch.where(_present(features), _instances(features).labels_S, -1)
        # Regions without a class get a class of their own, which is dropped again: one_hot takes no -1.
        of_class_KS = functional.one_hot(labels_S + 1, self.num_classes + 1).T[1:]
        count_K1 = of_class_KS.sum(1, keepdim=True)
        student, teacher = (self._distances(x, of_class_KS.to(x.dtype), count_K1) for x in _vectors(features))
        weights_KK = _off_diagonal((count_K1[:, 0] > 0).to(student.dtype))
        return as_relations(features, student, teacher, weights_KK)

    @staticmethod
    def _distances(vectors_SD: Tensor, of_class_KS: Tensor, count_K1: Tensor) -> Tensor:
        center_KD = of_class_KS @ vectors_SD / count_K1.clamp_min(1)
        return _distances(center_KD)


class Affinity(Transform):
    """softmax_j(cos(v_i, v_j) / temperature) over the other regions j != i, v the cells' unit vectors side by side.

    Layout regions -> cell_distribution (S, 1, 1, S); the diagonal does not count. TinyCLIP, arXiv:2309.12314, section
    3.1 (affinity mimicking). There the two sides of the matrix are images and texts, and a second softmax runs over its
    columns. Here both sides are regions, the matrix is symmetric, and its columns' distributions are those of its rows:
    a mean over both is the mean over the rows.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        members = features.members_SHW
        sides = (unit(vectors(unit(x, (1,)), members), (1,)) for x in (features.student_SCHW, features.teacher_SCHW))
        student, teacher = (self_related(vectors_SD) / self.temperature for vectors_SD in sides)
        weights_SS = _off_diagonal(_present(features).to(student.dtype))
        related = as_relations(features, student, teacher, weights_SS)
        student, teacher = (
            log_softmax_over_cells(x, related.members_SHW) for x in (related.student_SCHW, related.teacher_SCHW)
        )
        return related.with_maps(student, teacher, layout=CELL_DISTRIBUTION, temperature=self.temperature)


def _vectors(features: FeaturePair) -> tuple[Tensor, Tensor]:
    members = features.members_SHW
    return vectors(features.student_SCHW, members), vectors(features.teacher_SCHW, members)


def _instances(features: FeaturePair) -> Instances:
    assert features.instances is not None, "layout regions without the regions' boxes"
    return features.instances


def _present(features: FeaturePair) -> Tensor:
    """(S,) bool: regions that are there, with a cell that counts."""
    present_S, members = _instances(features).present_S, features.members_SHW
    return present_S if members is None else present_S & (members > 0).flatten(1).any(1)


def _in_turns(present_S: Tensor, instances: Instances) -> Tensor:
    """(S,): indices of the regions, those that are there first, by their place within their image, then by image."""
    index_S = torch.arange(len(present_S), device=present_S.device)
    is_before_SS = (index_S < index_S[:, None]) & (instances.images_S == instances.images_S[:, None]) & present_S
    place_S = torch.where(present_S, is_before_SS.sum(1), len(present_S))
    return place_S.argsort(stable=True)


def _off_diagonal(weights_S: Tensor) -> Tensor:
    """(S, S): row times column, 0 on the diagonal."""
    return outer(weights_S) * (1 - torch.eye(len(weights_S), dtype=weights_S.dtype, device=weights_S.device))


def _distances(vectors_SD: Tensor) -> Tensor:
    """(S, S): ||v_i - v_j||, exactly 0 with gradient 0 if vectors are equal.

    From the differences themselves: ||v_i||^2 + ||v_j||^2 - 2 <v_i, v_j> cancels, and near duplicates would need
    float64, which most cards are slow at. torch.cdist makes no (S, S, D) tensor of them, forward or back.
    """
    return torch.cdist(vectors_SD, vectors_SD, compute_mode="donot_use_mm_for_euclid_dist")


def _roots(squares: Tensor) -> Tensor:
    """Square roots, with gradient 0 at 0."""
    has_length = squares > _NO_LENGTH**2
    return torch.where(has_length, torch.where(has_length, squares, 1.0).sqrt(), 0.0)
