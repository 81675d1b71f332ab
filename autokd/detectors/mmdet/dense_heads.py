"""Readers of the outputs of MMDetection's dense heads: class logits, boxes, distributions of edges.

A head gives a list of maps a quantity, one map a level; here they become (B, A, ...), levels fine to coarse, cells
row by row, the anchors of a cell last. Outputs are read in their training form (``intercept.training_form``).

Legend: B images, H x W cells of a level, N candidates of a level, A of all levels, K classes, E bins of an edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Outputs = Sequence[Any]
"""Result of a head's forward: lists of maps, one a level."""
Read = Callable[[Any, Outputs], Tensor]
"""(head, outputs) -> (B, A, ...)."""


@dataclass(frozen=True)
class DenseHead:
    """Readers of one kind of head; ``edge_logits`` is None unless edges are predicted as distributions."""

    class_logits: Read
    boxes: Read
    edge_logits: Read | None = None
    has_centerness: bool = False
    """Whether a third output, center-ness or objectness, goes into the score by which detection ranks."""

    @property
    def taps(self) -> tuple[str, ...]:
        return ("class_logits", "boxes", "proposals", *(("edge_logits",) if self.edge_logits is not None else ()))


def _rows(map_BCHW: Tensor, width: int) -> Tensor:
    """(B, anchors x width, H, W) -> (B, H x W x anchors, width)."""
    return map_BCHW.permute(0, 2, 3, 1).reshape(len(map_BCHW), -1, width)


def centerness(outputs: Outputs) -> Tensor:
    """Return center-ness or objectness, (B, A) in 0 to 1."""
    return torch.cat([_rows(map_BCHW, 1).squeeze(2) for map_BCHW in outputs[2]], 1).sigmoid()


def _logits(head: Any, outputs: Outputs) -> Tensor:
    """Scores before the sigmoid; centerness and objectness are not folded in. A background column is left out."""
    return torch.cat([_rows(map_BCHW, head.cls_out_channels) for map_BCHW in outputs[0]], 1)[..., : head.num_classes]


def _logits_of_probabilities(head: Any, outputs: Outputs) -> Tensor:
    """TOOD (arXiv:2108.07755, eq. 5) gives the geometric mean of two sigmoids, a probability already."""
    return torch.logit(_logits(head, outputs), eps=1e-6)


def _levels(head: Any, outputs: Outputs, width: int = 4) -> Iterator[tuple[Tensor, Tensor, int]]:
    """(priors (N, 2 or 4), second output (B, N, width), stride) of each level."""
    sizes = [tuple(map_BCHW.shape[-2:]) for map_BCHW in outputs[0]]
    priors = head.prior_generator.grid_priors(sizes, device=outputs[0][0].device)
    for priors_N, map_BCHW, stride in zip(priors, outputs[1], head.prior_generator.strides):
        yield priors_N, _rows(map_BCHW, width), stride[0] if isinstance(stride, (tuple, list)) else stride


def _decoded(head: Any, priors_N: Tensor, values_BN4: Tensor) -> Tensor:
    """The head's own box coder, image by image of the batch at once."""
    num_images = len(values_BN4)
    boxes = head.bbox_coder.decode(priors_N.repeat(num_images, 1), values_BN4.reshape(-1, 4))
    return boxes.view(num_images, -1, 4)


def _anchor_boxes(head: Any, outputs: Outputs) -> Tensor:
    """Deltas to anchors (RetinaNet, arXiv:1708.02002; ATSS, arXiv:1912.02424)."""
    return torch.cat([_decoded(head, priors, deltas) for priors, deltas, _ in _levels(head, outputs)], 1)


def _fcos_boxes(head: Any, outputs: Outputs) -> Tensor:
    """Distances from a cell's center, in pixels, or in strides where the head is normalized (arXiv:1904.01355)."""
    return torch.cat(
        [
            _decoded(head, points, distances * stride if head.norm_on_bbox else distances)
            for points, distances, stride in _levels(head, outputs)
        ],
        1,
    )


def _gfl_edges(head: Any, outputs: Outputs) -> Tensor:
    """(B, A, 4, E): left, top, right, bottom; bins of whole strides (GFL, arXiv:2006.04388, section 3.2)."""
    num_bins = head.reg_max + 1
    edges = torch.cat([_rows(map_BCHW, 4 * num_bins) for map_BCHW in outputs[1]], 1)
    return edges.unflatten(2, (4, num_bins))


def _gfl_boxes(head: Any, outputs: Outputs) -> Tensor:
    """Place each edge at the mean of its distribution."""
    width = 4 * (head.reg_max + 1)
    levels = _levels(head, outputs, width)
    return torch.cat(
        [
            _decoded(head, head.anchor_center(anchors), head.integral(bins).reshape(*bins.shape[:2], 4) * stride)
            for anchors, bins, stride in levels
        ],
        1,
    )


def _tood_boxes(head: Any, outputs: Outputs) -> Tensor:
    """Scale boxes, which the head decodes itself in strides (TOOD)."""
    return torch.cat([boxes * stride for _, boxes, stride in _levels(head, outputs)], 1)


def _rtmdet_boxes(head: Any, outputs: Outputs) -> Tensor:
    """Distances in pixels from a cell's corner (RTMDet, arXiv:2212.07784)."""
    return torch.cat([_decoded(head, points, distances) for points, distances, _ in _levels(head, outputs)], 1)


def _yolox_boxes(head: Any, outputs: Outputs) -> Tensor:
    """Center and logarithm of the size in strides (YOLOX, arXiv:2107.08430)."""
    boxes = []
    for corners_N2, values, stride in _levels(head, outputs):
        priors_N4 = torch.cat([corners_N2, torch.full_like(corners_N2, stride)], 1)
        boxes.append(head._bbox_decode(priors_N4, values))
    return torch.cat(boxes, 1)


def _reppoints_boxes(head: Any, outputs: Outputs) -> Tensor:
    """The box around the refined points, in strides from the cell (RepPoints, arXiv:1904.11490)."""
    scores, _, points = outputs
    around = [head.points2bbox(level) for level in points]
    boxes = [
        corners_N2.repeat(1, 2) + offsets * stride for corners_N2, offsets, stride in _levels(head, (scores, around))
    ]
    return torch.cat(boxes, 1)


_RTMDET = DenseHead(_logits, _rtmdet_boxes)

DENSE_HEADS: dict[str, DenseHead] = {
    "RetinaHead": DenseHead(_logits, _anchor_boxes),
    "ATSSHead": DenseHead(_logits, _anchor_boxes, has_centerness=True),
    "FCOSHead": DenseHead(_logits, _fcos_boxes, has_centerness=True),
    "GFLHead": DenseHead(_logits, _gfl_boxes, _gfl_edges),
    "TOODHead": DenseHead(_logits_of_probabilities, _tood_boxes),
    "RTMDetHead": _RTMDET,
    "RTMDetSepBNHead": _RTMDET,
    "YOLOXHead": DenseHead(_logits, _yolox_boxes, has_centerness=True),
    "RepPointsHead": DenseHead(_logits, _reppoints_boxes),
}
"""Class of the head, as the config's ``type`` names it -> its readers. Exact names, since a subclass may give other
quantities under the same form."""
