"""From the outputs of a model of transformers to taps, losses and detections.

Legend: B images, L decoder layers, Q queries, K classes of the data set, M classes of the model, E bins of an edge's
distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autokd.detectors.contract import Detections
from autokd.detectors.labels import LabelMap
from autokd.detectors.proposals import best_boxes
from autokd.detectors.transformers import shared_queries
from autokd.tensors import full_precision

CHOOSING_TYPES = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2", "rf_detr", "lw_detr")
"""Model types whose queries are the best cells of the encoder."""
SHARED_TAPS = ("shared_logits", "shared_boxes")
_SAME_BOX = 0.95
"""IoU from which two boxes are taken for one."""
WITH_EDGES = ("d_fine", "deimv2")
"""Model types whose heads predict distributions of edges (D-FINE, arXiv:2410.13842, section 4.1)."""
_GROUPED = ("rf_detr", "lw_detr")
"""Model types that train groups of queries side by side, of which detection uses the first."""
_WITH_BACKGROUND = ("detr", "table-transformer", "yolos")
"""Model types whose logits have a last class that means no object, below a softmax."""


def taps_of_type(model_type: str) -> tuple[str, ...]:
    """Return the taps of a model type, in the order of ``TAPS``.

    Args:
        model_type: type of the model.
    """
    taps: tuple[str, ...] = ("fpn", "class_logits", "boxes", "proposals")
    if model_type in WITH_EDGES:
        taps = (*taps, "edge_logits", "layer_edge_logits")
    return (*taps, *SHARED_TAPS) if model_type in shared_queries.TYPES else taps


class FullPrecisionLoss:
    """The model's own loss in float32, also under autocast: its matching has operations that half precision lacks.

    Args:
        loss: the function that the model calls.
    """

    def __init__(self, loss: Callable[..., Any]) -> None:
        self._loss = loss

    def __call__(self, logits: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the model's loss returns: the sum, its parts, and the auxiliary outputs."""
        with torch.autocast(logits.device.type, enabled=False):
            return self._loss(*_widened((logits, *args)), **_widened(kwargs))


def _widened(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_widened(item) for item in value)
    if isinstance(value, dict):
        return {key: _widened(item) for key, item in value.items()}
    return full_precision(value)


class Reading:
    """The outputs of one forward, with the matching queries alone.

    Args:
        output: what the model returned.
        config: its configuration.
        labels: how the model's classes belong to the data set's.
        input_size_px: (height, width) of the padded input, to which boxes are relative.
        shared: logits and boxes of the shared queries; empty if none of their taps is wanted.
    """

    def __init__(
        self,
        output: Any,
        config: Any,
        labels: LabelMap,
        input_size_px: tuple[int, int],
        shared: tuple[Tensor, ...] = (),
    ) -> None:
        self._shared = shared
        self._output, self._config, self._labels = output, config, labels
        self._height, self._width = input_size_px
        self._num = getattr(config, "num_detection_tokens", None) or config.num_queries

    def taps(self, wanted: tuple[str, ...]) -> dict[str, Tensor]:
        """Return the wanted taps by name, in float32.

        Args:
            wanted: names of taps that need the heads.
        """
        shared = self._shared
        makers: dict[str, Callable[[], Tensor]] = {
            "class_logits": lambda: self._labels.select(self._logits_BQM()),
            "boxes": self.boxes_BQ4,
            "proposals": self._proposals,
            "edge_logits": lambda: self._layer_edges()[:, -1],
            "layer_edge_logits": self._layer_edges,
            "shared_logits": lambda: self._labels.select(full_precision(shared[0])),
            "shared_boxes": lambda: self._corners(shared[1]),
        }
        return {tap: makers[tap]() for tap in wanted}

    def boxes_BQ4(self) -> Tensor:
        """Return the boxes of the last layer, xyxy pixels of the padded input."""
        return self._corners(self._matching(self._output.pred_boxes))

    def _corners(self, boxes_BQ4: Tensor) -> Tensor:
        boxes = full_precision(boxes_BQ4)
        center, half = boxes[..., :2], boxes[..., 2:] / 2
        return torch.cat([center - half, center + half], -1) * self._scale(boxes)

    def _scale(self, like: Tensor) -> Tensor:
        return like.new_tensor([self._width, self._height, self._width, self._height])

    def _logits_BQM(self) -> Tensor:
        logits = full_precision(self._matching(self._output.logits))
        return logits[..., : self._labels.num_model_classes]

    def _matching(self, rows_BQ: Tensor) -> Tensor:
        """Return the rows of the queries that detect: denoising queries come before, other groups behind."""
        is_grouped = self._config.model_type in _GROUPED
        return rows_BQ[:, : self._num] if is_grouped else rows_BQ[:, -self._num :]

    def _layer_edges(self) -> Tensor:
        corners_BLQX = full_precision(self._output.intermediate_predicted_corners)
        return corners_BLQX[:, :, -self._num :].unflatten(-1, (4, -1))

    @torch.no_grad()
    def _proposals(self) -> Tensor:
        logits = full_precision(self._matching(self._output.logits))
        has_background = self._config.model_type in _WITH_BACKGROUND
        scores = logits.softmax(-1) if has_background else logits.sigmoid()
        best_BQ = self._labels.select(scores[..., : self._labels.num_model_classes]).amax(2)
        return best_boxes(self.boxes_BQ4(), best_BQ, (self._height, self._width), _SAME_BOX)


def detections_of(
    output: Any, processor: Any, labels: LabelMap, input_size_px: tuple[int, int], image_size_px: tuple[int, int]
) -> list[Detections]:
    """Return the detections of each image, best first, as the model's image processor finds them.

    Args:
        output: what the model returned in evaluation mode.
        processor: its image processor.
        labels: how the model's classes belong to the data set's.
        input_size_px: (height, width) of the padded input.
        image_size_px: (height, width) of the images, at which boxes are cut off.
    """
    found = found_of(output, processor, input_size_px, 0.0)
    return [_ordered(each, labels, image_size_px) for each in found]


def found_of(output: Any, processor: Any, input_size_px: tuple[int, int], threshold: Any) -> list[dict[str, Tensor]]:
    """Return the scores, boxes and labels of each image as the model's image processor finds them, in any order.

    Args:
        output: what the model returned in evaluation mode.
        processor: its image processor.
        input_size_px: (height, width) of the padded input.
        threshold: score that a detection exceeds.
    """
    plain = type(output)(logits=full_precision(output.logits), pred_boxes=full_precision(output.pred_boxes))
    sizes = plain.logits.new_tensor([list(input_size_px)] * len(plain.logits))
    found: list[dict[str, Tensor]] = processor.post_process_object_detection(
        plain, threshold=threshold, target_sizes=sizes
    )
    return found


def _ordered(found: Mapping[str, Tensor], labels: LabelMap, image_size_px: tuple[int, int]) -> Detections:
    own, known = labels.from_model(found["labels"])
    boxes, scores, own = found["boxes"][known], found["scores"][known], own[known]
    height, width = image_size_px
    order = scores.argsort(descending=True, stable=True)
    order = order[torch.isfinite(scores[order]) & torch.isfinite(boxes[order]).all(dim=1)]
    limits = boxes.new_tensor([width, height, width, height])
    return {"boxes": boxes[order].clamp(min=0).minimum(limits), "scores": scores[order], "labels": own[order]}


def losses_of(output: Any) -> dict[str, Tensor]:
    """Return the model's own loss, which is the weighted sum of its parts over all layers.

    Args:
        output: what the model returned for images with labels.
    """
    return {"loss": full_precision(output.loss)}
