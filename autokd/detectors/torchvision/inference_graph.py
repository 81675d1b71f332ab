"""torchvision's detectors as exporters take them: torchvision's own detection steps in tensors of fixed sizes.

Legend: A candidate boxes of an image, K classes, N candidates after the best of each level are chosen, R proposals.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from autokd.detectors.inference_graph import GraphDetections, InferenceGraph, best_per_level, suppressed
from autokd.detectors.torchvision.adapter import Frame
from autokd.detectors.torchvision.dense import DenseDetector
from autokd.detectors.torchvision.two_stage import FasterRcnnDetector

_MIN_SIDE_PX = 1e-2
"""Least side of a detection of torchvision's box head (``RoIHeads.postprocess_detections``)."""


class DenseGraph(InferenceGraph):
    """FCOS or RetinaNet: ``postprocess_detections`` of torchvision without its data-dependent shapes.

    Args:
        detector: the detector, in evaluation mode.
        image_size_px: (height, width) of the image; the anchors belong to it.
    """

    def __init__(self, detector: DenseDetector, image_size_px: tuple[int, int]) -> None:
        super().__init__()
        self.detector = detector
        self._frame = _frame(detector, image_size_px)

    def forward(self, image_1CHW: Tensor) -> GraphDetections:
        """See ``InferenceGraph.forward``."""
        detector, frame, model = self.detector, self._frame, self.detector.model
        pyramid = model.backbone(detector.normalize_and_pad(image_1CHW))
        raw = detector._predict(pyramid)
        scores_AK = detector.class_scores(raw)[0]
        num_classes = scores_AK.shape[1]
        by_level = [num * num_classes for num in frame.num_anchors_by_level]
        scores_N, found_N = best_per_level(scores_AK.flatten(), by_level, model.topk_candidates)
        boxes_A4 = clip_boxes_to_image(detector._boxes(raw, frame)[0], frame.image_size_px)
        boxes_N4 = boxes_A4[found_N // num_classes]
        scores_N = torch.where(scores_N > model.score_thresh, scores_N, -torch.ones_like(scores_N))
        return suppressed(boxes_N4, scores_N, found_N % num_classes, model.nms_thresh, model.detections_per_img)


class FasterRcnnGraph(InferenceGraph):
    """Faster R-CNN: a fixed number of proposals, those that suppression dropped with a score of 0.

    Args:
        detector: the detector, in evaluation mode.
        image_size_px: (height, width) of the image; the anchors belong to it.
    """

    def __init__(self, detector: FasterRcnnDetector, image_size_px: tuple[int, int]) -> None:
        super().__init__()
        self.detector = detector
        self._frame = _frame(detector, image_size_px)

    def forward(self, image_1CHW: Tensor) -> GraphDetections:
        """See ``InferenceGraph.forward``."""
        detector, frame = self.detector, self._frame
        heads = detector.model.roi_heads
        maps = detector.model.backbone(detector.normalize_and_pad(image_1CHW))
        pyramid = dict(zip(detector.level_names, maps.values()))
        detector._model_levels = tuple(maps)
        proposals = self._proposals(detector._predict(pyramid))
        logits_RK, deltas_R4K = detector._box_head(pyramid, [proposals.boxes], frame)
        boxes_RK4 = heads.box_coder.decode(deltas_R4K, [proposals.boxes])
        boxes_RK4 = clip_boxes_to_image(boxes_RK4, frame.image_size_px)[:, 1:]  # the background comes first
        scores_RK = logits_RK.softmax(dim=1)[:, 1:]
        counts_RK = (scores_RK > heads.score_thresh) & (proposals.scores > 0)[:, None]
        counts_RK &= _is_large(boxes_RK4, _MIN_SIDE_PX)
        scores_RK = torch.where(counts_RK, scores_RK, -torch.ones_like(scores_RK))
        labels_RK = torch.arange(scores_RK.shape[1], device=scores_RK.device).expand_as(scores_RK)
        boxes_N4, scores_N, labels_N = boxes_RK4.flatten(0, 1), scores_RK.flatten(), labels_RK.flatten()
        return suppressed(boxes_N4, scores_N, labels_N, heads.nms_thresh, heads.detections_per_img)

    def _proposals(self, raw: dict[str, Tensor]) -> GraphDetections:
        """``RegionProposalNetwork.filter_proposals``; the label of a proposal is its level."""
        rpn, frame = self.detector.model.rpn, self._frame
        boxes_A4 = rpn.box_coder.decode(raw["deltas"], [frame.anchors_A4])[:, 0]
        _, found_N = best_per_level(raw["objectness"].flatten(), frame.num_anchors_by_level, rpn.pre_nms_top_n())
        boxes_N4 = clip_boxes_to_image(boxes_A4[found_N], frame.image_size_px)
        scores_N = raw["objectness"].flatten()[found_N].sigmoid()
        counts_N = _is_large(boxes_N4, rpn.min_size) & (scores_N >= rpn.score_thresh)
        levels_A = torch.cat([torch.full((num,), level) for level, num in enumerate(frame.num_anchors_by_level)])
        scores_N = torch.where(counts_N, scores_N, -torch.ones_like(scores_N))
        levels_N = levels_A.to(scores_N.device)[found_N]
        return suppressed(boxes_N4, scores_N, levels_N, rpn.nms_thresh, rpn.post_nms_top_n())


def _frame(detector: DenseDetector | FasterRcnnDetector, image_size_px: tuple[int, int]) -> Frame:
    """Return the geometry of one image, computed before an exporter looks: the table of anchors keeps what it makes."""
    device = next(detector.parameters()).device
    empty_1CHW = torch.zeros(1, 3, *image_size_px, device=device)
    return detector._frame(empty_1CHW, detector.normalize_and_pad(empty_1CHW))


def _is_large(boxes_xyxy: Tensor, min_side_px: float) -> Tensor:
    sides = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]
    return (sides >= min_side_px).all(dim=-1)
