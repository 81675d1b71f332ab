"""Query-based detectors of MMDetection: an encoder over maps, a decoder of object queries.

Legend: B images, C channels, H x W cells of a level, N cells of all levels, Q queries, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autokd.detectors.mmdet.adapter import Batch, Features, HeadReading, MmdetAdapter
from autokd.detectors.mmdet.intercept import patched_methods, recorded_outputs, training_form
from autokd.detectors.proposals import best_boxes
from autokd.tensors import full_precision

QUERY_HEADS = ("DETRHead", "ConditionalDETRHead", "DABDETRHead", "DeformableDETRHead", "DINOHead")
"""Heads whose outputs are layers of (class scores, boxes), the matching queries last. Others give the pyramid only."""
_SAME_BOX = 0.95
"""IoU from which two boxes are taken for one."""


class QueryAdapter(MmdetAdapter):
    """Any ``DetectionTransformer``: DETR, Deformable DETR, DINO (arXiv:2005.12872, 2010.04159, 2203.03605).

    The pyramid is the encoder's output put back into maps; the decoder reads these very maps. Class logits and boxes
    are those of the matching queries after the last layer of the decoder: row q is query q, which has no place of its
    own, so rows of two detectors are never compared.
    """

    def _features(self, batch: Batch) -> Features:
        neck_maps = self.model.extract_feat(batch.inputs_BCHW)
        encoder_inputs, _ = self.model.pre_transformer(neck_maps, batch.samples)
        encoded = self.model.forward_encoder(**encoder_inputs)
        maps = _maps_of(encoded["memory"], neck_maps)
        # The memory again, as a view of the maps: gradients of the losses then reach the maps that are returned.
        encoded = {**encoded, "memory": torch.cat([map_BCHW.flatten(2) for map_BCHW in maps], 2).transpose(1, 2)}
        # A copy of the mapping for each call: the code after the encoder may change what it gets.
        return Features(maps, {"extract_feat": lambda *_: neck_maps, "forward_encoder": lambda **_: dict(encoded)})

    def _read_heads(self, features: Features, batch: Batch, taps: Sequence[str]) -> HeadReading:
        losses: dict[str, Any] = {}
        with recorded_outputs(self.model.bbox_head) as recorded:
            if batch.has_targets:
                losses = self._losses_of_model(features, batch)
                outputs = recorded[0]
            else:
                # Denoising queries are made of targets. Without targets the model runs as in detection, which has none.
                with patched_methods(self.model, features.replacements), training_form(self._formed_parts, False):
                    outputs = self.model(batch.inputs_BCHW, batch.samples, mode="tensor")
        if not taps:
            return HeadReading(losses)
        scores_BQK, boxes_BQ4 = (layers[-1] for layers in outputs[:2])
        num_queries = self.model.num_queries
        sizes = [sample.img_shape[:2] for sample in batch.samples]
        scale = boxes_BQ4.new_tensor([[width, height, width, height] for height, width in sizes])[:, None]
        # Denoising queries come before the matching ones.
        class_logits = scores_BQK[:, -num_queries:, : self.model.bbox_head.num_classes]
        boxes = _corners(boxes_BQ4[:, -num_queries:]) * scale
        return HeadReading(
            losses,
            class_logits=class_logits if "class_logits" in taps else None,
            boxes=boxes if "boxes" in taps else None,
            proposals=self._proposals(scores_BQK[:, -num_queries:], boxes, batch) if "proposals" in taps else None,
        )

    @torch.no_grad()
    def _proposals(self, scores_BQK: Tensor, boxes_BQ4: Tensor, batch: Batch) -> Tensor:
        """Return the best boxes. Queries do not predict an object twice, so only equal boxes are suppressed."""
        head, scores_BQK = self.model.bbox_head, full_precision(scores_BQK)
        scores = scores_BQK.sigmoid() if head.loss_cls.use_sigmoid else scores_BQK.softmax(-1)
        best_BQ = self._labels.select(scores[..., : head.num_classes]).amax(2)
        return best_boxes(full_precision(boxes_BQ4), best_BQ, batch.image_size_px, _SAME_BOX)

    @property
    def _head_taps(self) -> tuple[str, ...]:
        return query_taps(type(self.model.bbox_head).__name__)

    @property
    def _formed_parts(self) -> list[nn.Module]:
        return [self.model, self.model.bbox_head]


def query_taps(head: str) -> tuple[str, ...]:
    """Return the taps beside ``fpn`` of a head's class, by its name."""
    return ("class_logits", "boxes", "proposals") if head in QUERY_HEADS else ()


def _maps_of(memory_BNC: Tensor, neck_maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the encoder's sequence as maps: of every level, or of the last one alone (DETR)."""
    sizes = [(map_BCHW.shape[-2], map_BCHW.shape[-1]) for map_BCHW in neck_maps]
    if memory_BNC.shape[1] != sum(height * width for height, width in sizes):
        sizes = sizes[-1:]
    parts = full_precision(memory_BNC).transpose(1, 2).split([height * width for height, width in sizes], dim=2)
    return tuple(part.unflatten(2, size) for part, size in zip(parts, sizes))


def _corners(boxes_BQ4: Tensor) -> Tensor:
    """Return xyxy of boxes given as center and size."""
    center, half = boxes_BQ4[..., :2], boxes_BQ4[..., 2:] / 2
    return torch.cat([center - half, center + half], -1)
