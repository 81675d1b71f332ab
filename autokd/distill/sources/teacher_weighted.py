"""Sources of pyramid maps whose cells are weighted by what the teacher predicts; the student's head may be of any kind.

Legend: B images, C channels, H x W cells, A candidate boxes of an image, K classes, N boxes of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autokd.distill.candidates import best_overlaps, cell_scores, num_anchors_of, top_scores
from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import Grid
from autokd.distill.operators import BuildContext, Source
from autokd.distill.sources.maps import FeatureMap
from autokd.distill.term_inputs import TermInputs
from autokd.distill.weighting.cell_weights import CellWeights
from autokd.errors import DistillError

_LEAST_SIMILARITY = 1e-2
"""Least sum of similarities before it is divided by the greatest, as in TAO's code."""
_NO_LENGTH = 1e-12


class TeacherConfidence(FeatureMap):
    """Every cell of every paired level, weighted by the teacher's top class probability (sigmoid) there.

    A cell's probability is the greatest of its anchors and classes; a pooled cell has the greatest of its window.
    Ultralytics' distillation (2026) divides the weighted squares by the sum of the weights on each level, as ``l2``
    does. PGD, arXiv:2203.05469, weighs by the predictions' quality too, but within each object.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        if context.teacher is not None:
            num_anchors_of(context.teacher)

    def region(self, inputs: TermInputs, level: int) -> CellWeights:
        scores_BHW = inputs.shared("cell scores", lambda: self._scores(inputs))[inputs.pairs[level].teacher]
        height, width = self.maps(inputs, level)[0].shape[-2:]
        return CellWeights(scores_BHW[:, :height, :width])

    @staticmethod
    def _scores(inputs: TermInputs) -> dict[str, Tensor]:
        sizes = {name: (map_BCHW.shape[2], map_BCHW.shape[3]) for name, map_BCHW in inputs.teacher.pyramid.items()}
        return cell_scores(inputs.teacher_tap("class_logits"), sizes)


class ObjectSimilarity(Source):
    """Maps times a mask of similarity to the teacher's objects, on every paired level.

    m = sum_n s_n o_n cos(v_n, t) over the ``candidates`` best boxes n of the teacher: s_n the top class probability,
    o_n the greatest IoU with a ground-truth box (1 in images without one), t the teacher's vector of the cell, v_n its
    vector at the center of box n. m is raised to at least 0.01 and divided by its maximum over the level of an image;
    it multiplies both sides, so that ``l2`` is the mean of (m s - m t)^2. TAO Toolkit's criterion ``IOU`` (its RT-DETR
    distiller), which is DETRDistill's target-aware feature distillation, arXiv:2211.10156: there v_n is the decoder's
    query, in TAO chosen from the encoder's cells. AutoKD has no tap of queries: v_n is read from the map, so that
    teachers without queries serve as well.
    """

    def __init__(self, context: BuildContext, candidates: int) -> None:
        super().__init__(context)
        self.candidates = candidates

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        centers_BN2, quality_BN = inputs.shared(("objects", self.candidates), lambda: self._objects(inputs))
        pieces = []
        for level in self.levels(inputs):
            student_BCHW, teacher_BCHW = self.maps(inputs, level)
            mask_B1HW = similarity(teacher_BCHW, centers_BN2 / inputs.pairs[level].stride, quality_BN)
            grid = Grid(*student_BCHW.shape[-2:])
            pieces.append(FeaturePair(student_BCHW * mask_B1HW, teacher_BCHW * mask_B1HW, grid, level=level))
        return tuple(pieces)

    def _objects(self, inputs: TermInputs) -> tuple[Tensor, Tensor]:
        """(B, N, 2) centers of the boxes in pixels, and (B, N) score times IoU."""
        boxes_BA4, logits_BAK = inputs.teacher_tap("boxes"), inputs.teacher_tap("class_logits")
        if boxes_BA4.shape[:2] != logits_BAK.shape[:2]:
            raise DistillError(
                f"the teacher has boxes of shape {tuple(boxes_BA4.shape)} and class logits of shape "
                f"{tuple(logits_BAK.shape)}; each box needs its logits."
            )
        scores_BN, index_BN = top_scores(logits_BAK).topk(min(self.candidates, logits_BAK.shape[1]), dim=1)
        # A head that diverges on one box may decode it to infinity; the box then lies at the edge.
        boxes_BN4 = boxes_BA4.gather(1, index_BN[..., None].expand(-1, -1, 4)).nan_to_num()
        has_objects_B1 = inputs.boxes.present_BM.any(1, keepdim=True)
        overlaps_BN = best_overlaps(boxes_BN4, inputs.boxes)[0]
        quality_BN = scores_BN * torch.where(has_objects_B1, overlaps_BN, 1.0)
        return (boxes_BN4[..., :2] + boxes_BN4[..., 2:]) / 2, quality_BN


def similarity(teacher_BCHW: Tensor, centers_BN2: Tensor, quality_BN: Tensor) -> Tensor:
    """Return each cell's similarity to the vectors at ``centers_BN2``, at most 1.

    Args:
        teacher_BCHW: the teacher's map.
        centers_BN2: x and y in cells of the map; those beyond its edge are moved to the edge.
        quality_BN: weight of each center.

    Returns:
        (B, 1, H, W), the greatest of each image 1.
    """
    size_2 = centers_BN2.new_tensor([teacher_BCHW.shape[3], teacher_BCHW.shape[2]])
    places_BN12 = (centers_BN2 / size_2 * 2 - 1).clamp(-1, 1)[:, :, None]
    objects_BCN = functional.grid_sample(
        teacher_BCHW, places_BN12.to(teacher_BCHW), padding_mode="border", align_corners=False
    )[..., 0]
    # The sum over the boxes is taken first: cosines are linear in the unit vectors, and one vector is left an image.
    objects_BCN = functional.normalize(objects_BCN, dim=1, eps=_NO_LENGTH)
    guide_BC = torch.einsum("bcn,bn->bc", objects_BCN, quality_BN.to(teacher_BCHW))
    lengths_BHW = torch.linalg.vector_norm(teacher_BCHW, dim=1).clamp_min(_NO_LENGTH)
    sums_BHW = torch.einsum("bc,bchw->bhw", guide_BC, teacher_BCHW) / lengths_BHW
    raised_BHW = sums_BHW.clamp_min(_LEAST_SIMILARITY)
    return (raised_BHW / raised_BHW.amax((1, 2), keepdim=True))[:, None]
