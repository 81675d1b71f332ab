"""MMDetection's models as exporters take them: ``model.predict`` itself, with the steps of unknown size replaced.

mmdet keeps candidates above a score, the best of those, and what suppression leaves: three numbers that depend on the
image. Here candidates below the score stay, with score 0, and ``inference_graph.suppressed`` does the rest.

Legend: N candidate boxes of an image, K classes of the model, R proposals.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from autokd.detectors.inference_graph import ABSENT_LABEL, GraphDetections, InferenceGraph, suppressed
from autokd.detectors.mmdet.adapter import MmdetAdapter
from autokd.detectors.mmdet.dense import OneStageAdapter
from autokd.detectors.mmdet.intercept import patched_methods
from autokd.detectors.mmdet.query import QueryAdapter
from autokd.detectors.mmdet.two_stage import TwoStageAdapter
from autokd.errors import DetectorError

_SELECTION = "filter_scores_and_topk"
"""Name of mmdet's function that chooses the candidates of a level; heads import it by name."""


def inference_graph_of(detector: MmdetAdapter) -> InferenceGraph:
    """Return the graph of a model of MMDetection.

    Args:
        detector: the detector, in evaluation mode.

    Raises:
        DetectorError: if its heads detect in a way that has no form of fixed size here.
    """
    model = detector.model
    if isinstance(detector, QueryAdapter):
        return QueryGraph(detector)
    if isinstance(detector, TwoStageAdapter) and detector._is_known:
        _require_plain_suppression(detector, model.rpn_head.test_cfg, model.roi_head.test_cfg)
        return TwoStageGraph(detector)
    if isinstance(detector, OneStageAdapter) and _selects_by_function(model.bbox_head):
        _require_plain_suppression(detector, model.bbox_head.test_cfg)
        return DenseGraph(detector)
    head = getattr(model, "bbox_head", None) or getattr(model, "roi_head", model)
    raise DetectorError(
        f"{detector.architecture}: {type(head).__name__} has no form for ONNX and TorchScript here, since its number "
        "of candidates depends on the image. Export it as safetensors, or by MMDeploy from student.py and student.pth."
    )


class _MmdetGraph(InferenceGraph):
    """Base: preprocessing, ``model.predict`` under replacements, the data set's labels."""

    def __init__(self, detector: MmdetAdapter) -> None:
        super().__init__()
        self.detector = detector
        order = detector._labels
        back_M = torch.full((order.num_model_classes,), ABSENT_LABEL, dtype=torch.int64)
        back_M[list(order.order)] = torch.arange(len(order.order))
        self.register_buffer("_label_of_M", back_M, persistent=False)

    def forward(self, image_1CHW: Tensor) -> GraphDetections:
        """See ``InferenceGraph.forward``."""
        batch = self.detector._batch(image_1CHW, None)
        with ExitStack() as stack:
            stack.enter_context(self.detector._unused_children())
            stack.enter_context(self._replacements())
            (sample,) = self.detector.model.predict(batch.inputs_BCHW, batch.samples, rescale=False)
        return self._detections(sample.pred_instances)

    @contextmanager
    def _replacements(self) -> Iterator[None]:
        """Replace steps of unknown size within the context."""
        yield

    def _detections(self, instances: Any) -> GraphDetections:
        raise NotImplementedError

    def _of_data_set(self, scores_N: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and labels of the data set's classes; the score of another class is 0."""
        labels_N = self._label_of_M[labels_N]  # type: ignore[index]
        return torch.where(labels_N >= 0, scores_N, torch.zeros_like(scores_N)), labels_N


class DenseGraph(_MmdetGraph):
    """A one-stage model whose head selects candidates by ``filter_scores_and_topk``."""

    @contextmanager
    def _replacements(self) -> Iterator[None]:
        head = self.detector.model.bbox_head
        with _fixed_selection(head), patched_methods(head, {"_bbox_post_process": _unsuppressed}):
            yield

    def _detections(self, instances: Any) -> GraphDetections:
        cfg = self.detector.model.bbox_head.test_cfg
        # Other classes' boxes do not suppress the data set's, and are not counted, as in ``_detections_of``.
        scores_N, labels_N = self._of_data_set(instances.scores, instances.labels)
        return suppressed(instances.bboxes, scores_N, labels_N, cfg.nms.iou_threshold, cfg.max_per_img)


class QueryGraph(_MmdetGraph):
    """A model on queries: its number of detections is fixed already."""

    def _detections(self, instances: Any) -> GraphDetections:
        scores_N, labels_N = self._of_data_set(instances.scores, instances.labels)
        scores_D, order_D = scores_N.topk(len(scores_N))
        labels_D = torch.where(scores_D > 0, labels_N[order_D], torch.full_like(order_D, ABSENT_LABEL))
        return GraphDetections(instances.bboxes[order_D], scores_D, labels_D)


class TwoStageGraph(_MmdetGraph):
    """Faster or Cascade R-CNN: a fixed number of proposals, each pooled from every level, of which its own counts."""

    @contextmanager
    def _replacements(self) -> Iterator[None]:
        model = self.detector.model
        head, extractors = model.roi_head.bbox_head, model.roi_head.bbox_roi_extractor
        last: Any = head[-1] if isinstance(head, nn.ModuleList) else head
        found: list[Tensor] = []

        def proposals(results: Any, cfg: Any, **_: Any) -> Any:
            kept = _proposals(results, cfg)
            found.append(kept.scores)
            return kept

        def raw(*args: Any, **settings: Any) -> Any:
            results = type(last)._predict_by_feat_single(last, *args, **{**settings, "rcnn_test_cfg": None})
            # Absent proposals find nothing.
            results.scores = results.scores * (found[-1] > 0)[:, None]
            return results

        with ExitStack() as stack:
            stack.enter_context(patched_methods(model.rpn_head, {"_bbox_post_process": proposals}))
            stack.enter_context(patched_methods(last, {"_predict_by_feat_single": raw}))
            for extractor in extractors if isinstance(extractors, nn.ModuleList) else [extractors]:
                stack.enter_context(patched_methods(extractor, {"forward": _pooling_of(extractor)}))
            yield

    def _detections(self, instances: Any) -> GraphDetections:
        cfg = self.detector.model.roi_head.test_cfg
        scores_RK = instances.scores[:, :-1]  # the background comes last
        num_classes = scores_RK.shape[1]
        boxes_RK4 = instances.bboxes.unflatten(1, (-1, 4)).expand(-1, num_classes, 4)
        scores_RK = torch.where(scores_RK > cfg.score_thr, scores_RK, torch.zeros_like(scores_RK))
        labels_RK = torch.arange(num_classes, device=scores_RK.device).expand_as(scores_RK)
        scores_N, labels_N = self._of_data_set(scores_RK.flatten(), labels_RK.flatten())
        return suppressed(boxes_RK4.flatten(0, 1), scores_N, labels_N, cfg.nms.iou_threshold, cfg.max_per_img)


def _selects_by_function(head: Any) -> bool:
    """Whether a head detects level by level, as ``BaseDenseHead`` does, with the selection that is replaced here."""
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

    kind = type(head)
    is_usual = isinstance(head, BaseDenseHead) and kind.predict_by_feat is BaseDenseHead.predict_by_feat
    return is_usual and hasattr(sys.modules[kind._predict_by_feat_single.__module__], _SELECTION)


@contextmanager
def _fixed_selection(head: Any) -> Iterator[None]:
    """Replace mmdet's selection of candidates in the modules of a head's classes within the context."""
    modules = {sys.modules[kind.__module__] for kind in type(head).__mro__}
    changed = [module for module in modules if hasattr(module, _SELECTION)]
    originals = [getattr(module, _SELECTION) for module in changed]
    for module in changed:
        setattr(module, _SELECTION, _select)
    try:
        yield
    finally:
        for module, original in zip(changed, originals):
            setattr(module, _SELECTION, original)


def _select(scores_AK: Tensor, score_thr: float, topk: int, results: Any = None) -> tuple[Tensor, Tensor, Tensor, Any]:
    """``filter_scores_and_topk`` of mmdet, with a fixed number of candidates: those below the threshold score 0."""
    num_classes = scores_AK.shape[1]
    counted = torch.where(scores_AK > score_thr, scores_AK, torch.zeros_like(scores_AK)).flatten()
    scores_N, found_N = counted.topk(min(topk if topk > 0 else len(counted), len(counted)))
    rows_N, labels_N = found_N // num_classes, found_N % num_classes
    chosen = {name: value[rows_N] for name, value in results.items()} if isinstance(results, dict) else results
    if isinstance(results, list):
        chosen = [value[rows_N] for value in results]
    elif isinstance(results, Tensor):
        chosen = results[rows_N]
    return scores_N, labels_N, rows_N, chosen


def _unsuppressed(results: Any, cfg: Any, **_: Any) -> Any:
    """``_bbox_post_process`` of a dense head up to its suppression."""
    if hasattr(results, "score_factors"):
        results.scores = results.scores * results.pop("score_factors")
    results.scores = results.scores * _is_large(results.bboxes, cfg.get("min_bbox_size", -1))
    return results


def _proposals(results: Any, cfg: Any) -> Any:
    """``_bbox_post_process`` of a region proposal head: as many proposals as it returns at most."""
    scores_N = results.scores * _is_large(results.bboxes, cfg.get("min_bbox_size", -1))
    kept = suppressed(results.bboxes, scores_N, results.level_ids, cfg.nms.iou_threshold, cfg.max_per_img)
    return type(results)(bboxes=kept.boxes, scores=kept.scores, labels=torch.zeros_like(kept.labels))


def _is_large(boxes_N4: Tensor, min_side_px: float) -> Tensor:
    if min_side_px < 0:
        return torch.ones_like(boxes_N4[:, 0])
    return ((boxes_N4[:, 2:] - boxes_N4[:, :2]) > min_side_px).all(dim=1).to(boxes_N4.dtype)


def _pooling_of(extractor: Any) -> Callable[..., Tensor]:
    """Return ``SingleRoIExtractor.forward`` that pools every region from every level, and takes its own level's."""

    def forward(feats: Any, rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        if len(feats) == 1:
            return extractor.roi_layers[0](feats[0], rois)
        levels_R = extractor.map_roi_levels(rois, len(feats))
        rois = extractor.roi_rescale(rois, roi_scale_factor) if roi_scale_factor is not None else rois
        pooled = [layer(feat, rois) for layer, feat in zip(extractor.roi_layers, feats)]
        found = pooled[0]
        for level, values in enumerate(pooled[1:], start=1):
            found = torch.where((levels_R == level)[:, None, None, None], values, found)
        return found

    return forward


def _require_plain_suppression(detector: MmdetAdapter, *settings: Any) -> None:
    """Refuse soft suppression and the like, which changes scores."""
    for cfg in settings:
        kind = (cfg.get("nms") or {}).get("type", "nms")
        if kind != "nms":
            raise DetectorError(
                f"{detector.architecture}: test_cfg.nms.type is {kind!r}; ONNX and TorchScript take 'nms' alone. Set "
                "it by 'options' of the section, or export safetensors."
            )
