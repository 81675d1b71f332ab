"""Models of transformers as exporters take them: the processor's own rule for detections, without its threshold.

Legend: Q detections that the processor finds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autokd.detectors.inference_graph import ABSENT_LABEL, GraphDetections, InferenceGraph
from autokd.detectors.transformers.adapter import TransformersAdapter
from autokd.detectors.transformers.outputs import found_of


class TransformersGraph(InferenceGraph):
    """Any model of ``TransformersAdapter``: one row for each detection that its image processor finds, best first.

    Args:
        detector: the detector; the graph shares its modules.
    """

    def __init__(self, detector: TransformersAdapter) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image_1CHW: Tensor) -> GraphDetections:
        detector, (height, width) = self.detector, image_1CHW.shape[-2:]
        output, input_size_px = detector.predict(image_1CHW)
        # A threshold's mask has as many rows as the image has objects; exporters take fixed numbers.
        (found,) = found_of(output, detector.processor, input_size_px, _Everything())
        labels_Q, is_known_Q = detector.labels.from_model(found["labels"])
        is_there_Q = is_known_Q & torch.isfinite(found["scores"]) & torch.isfinite(found["boxes"]).all(dim=1)
        scores_Q = torch.where(is_there_Q, found["scores"], torch.zeros_like(found["scores"]))
        scores_Q, rows_Q = scores_Q.topk(len(scores_Q))
        limits = found["boxes"].new_tensor([width, height, width, height])
        boxes_Q4 = found["boxes"][rows_Q].clamp(min=0).minimum(limits)
        labels_Q = torch.where(scores_Q > 0, labels_Q[rows_Q], torch.full_like(rows_Q, ABSENT_LABEL))
        return GraphDetections(boxes_Q4, scores_Q, labels_Q)


class _Everything(float):
    """A threshold above which every score is: ``scores > threshold`` is an index that takes all rows.

    A tensor's ``>`` asks the other operand first if that is of a type with ``__torch_function__``.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> slice:
        return slice(None)
