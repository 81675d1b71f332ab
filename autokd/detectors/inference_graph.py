"""The form of a detector that exporters take: one image in, a fixed number of detections out, no data-dependent shape.

Legend: N candidate boxes of an image, D detections, M candidates that are compared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import nms

MAX_CANDIDATES = 2048
"""Candidates of an image, best first, among which duplicates are suppressed. Comparing all pairs of more costs more
than the network itself; detection differs only if more than this many candidates are above the score threshold."""
ABSENT_LABEL = -1
"""Label of a row without a detection; its score is 0."""


class GraphDetections(NamedTuple):
    """Detections of one image, best first; rows without one have score 0 and label -1."""

    boxes: Tensor
    """(D, 4) xyxy px of the network's input."""
    scores: Tensor
    """(D,) in [0, 1]."""
    labels: Tensor
    """(D,) int64, from 0."""


class InferenceGraph(nn.Module, ABC):
    """A detector as ``torch.export`` and ``torch.jit.trace`` take it: a function of one image, without control flow.

    A framework returns one from ``Framework.inference_graph``. It finds what ``Detector.detect`` finds.
    """

    @abstractmethod
    def forward(self, image_1CHW: Tensor) -> GraphDetections:
        """Return the detections of one image.

        Args:
            image_1CHW: (1, 3, H, W) RGB in [0, 1], scaled and padded as ``autokd.data`` does.
        """


def suppressed(
    boxes_N4: Tensor, scores_N: Tensor, labels_N: Tensor, iou_threshold: float, max_detections: int
) -> GraphDetections:
    """Keep the best of overlapping boxes of equal label, in tensors of a fixed size.

    Args:
        boxes_N4: xyxy px.
        scores_N: scores; candidates with 0 or less are absent.
        labels_N: int64 labels; boxes of different labels never suppress each other.
        iou_threshold: overlap above which the box with the lower score is dropped.
        max_detections: most boxes to return.

    Returns:
        min(N, ``max_detections``, ``MAX_CANDIDATES``) rows.
    """
    # Suppression looks at the best first, so candidates that are absent, or beyond the best M, suppress nothing else.
    scores_M, best_M = scores_N.topk(min(scores_N.shape[0], MAX_CANDIDATES))
    boxes_M4, labels_M = boxes_N4[best_M], labels_N[best_M]
    # Boxes of each label are moved to a place of their own, so that one suppression serves all labels.
    apart_M4 = boxes_M4 + (labels_M.to(boxes_M4.dtype) * (boxes_M4.max() - boxes_M4.min() + 1))[:, None]
    kept = nms(apart_M4, scores_M, iou_threshold)
    # The number of kept boxes depends on the image. A mask of all M has a fixed size, and TopK orders by it.
    is_kept_M = torch.zeros_like(scores_M).scatter(0, kept, torch.ones_like(kept, dtype=scores_M.dtype))
    scores_D, rows_D = (scores_M.clamp(min=0) * is_kept_M).topk(min(scores_M.shape[0], max_detections))
    labels_D = torch.where(scores_D > 0, labels_M[rows_D], torch.full_like(rows_D, ABSENT_LABEL))
    return GraphDetections(boxes_M4[rows_D], scores_D, labels_D)


def best_per_level(scores_A: Tensor, num_by_level: list[int], most: int) -> tuple[Tensor, Tensor]:
    """Return the best entries of each level.

    Args:
        scores_A: scores, levels one after another.
        num_by_level: entries of each level.
        most: most entries of a level to keep.

    Returns:
        Scores and their indices in ``scores_A``.
    """
    found, offset = [], 0
    for num in num_by_level:
        scores, indices = scores_A[offset : offset + num].topk(min(most, num))
        found.append((scores, indices + offset))
        offset += num
    return torch.cat([scores for scores, _ in found]), torch.cat([indices for _, indices in found])
