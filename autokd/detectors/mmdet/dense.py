"""One-stage detectors of MMDetection: one head over every cell of every level.

Legend: B images, H x W cells of a level, A candidate boxes of an image over all levels, K classes, E bins of an edge's
distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from autokd.detector_outputs import CrossHead
from autokd.detectors.mmdet.adapter import Batch, Features, HeadReading, MmdetAdapter
from autokd.detectors.mmdet.cross_head import CUT_HEADS, FrozenMmdetHead, maps_at_cut
from autokd.detectors.mmdet.dense_heads import DENSE_HEADS, DenseHead, centerness
from autokd.detectors.mmdet.intercept import recorded_outputs, training_form
from autokd.detectors.proposals import best_boxes
from autokd.tensors import full_precision

_USUAL_THRESHOLD = 0.6


class OneStageAdapter(MmdetAdapter):
    """Any ``SingleStageDetector``. Heads in ``DENSE_HEADS`` give class logits and boxes; others give the pyramid only.

    Candidates run over levels fine to coarse, rows, columns, then the anchors of a cell, as in torchvision's models.
    TOOD assigns targets as in its main phase, unless a runner of mmengine publishes the epoch.
    """

    def _features(self, batch: Batch) -> Features:
        maps = tuple(full_precision(map_BCHW) for map_BCHW in self.model.extract_feat(batch.inputs_BCHW))
        return Features(maps, {"extract_feat": lambda *_: maps})

    def _read_heads(self, features: Features, batch: Batch, taps: Sequence[str]) -> HeadReading:
        reader, head = self._reader, self.model.bbox_head
        losses: dict[str, Any] = {}
        with maps_at_cut(head, self.level_names) if "head_maps" in taps else nullcontext() as head_maps:
            if batch.has_targets:
                with recorded_outputs(head) as recorded, _main_phase(head):
                    losses = self._losses_of_model(features, batch)
                (outputs,) = recorded  # one call: ``loss`` runs a dense head exactly once
            else:
                with training_form(self._formed_parts, True):
                    outputs = head(features.maps)
        if reader is None:
            return HeadReading(losses)
        return HeadReading(
            losses,
            class_logits=reader.class_logits(head, outputs) if "class_logits" in taps else None,
            boxes=reader.boxes(head, outputs) if "boxes" in taps else None,
            edge_logits=reader.edge_logits(head, outputs) if "edge_logits" in taps and reader.edge_logits else None,
            proposals=self._proposals(reader, outputs, batch) if "proposals" in taps else None,
            head_maps=head_maps,
        )

    def _cross_head(self) -> CrossHead | None:
        if "head" not in self._head_taps or self._reader is None:
            return None
        return FrozenMmdetHead(self.model.bbox_head, self._reader, self.strides, self._labels)

    @torch.no_grad()
    def _proposals(self, reader: DenseHead, outputs: Sequence[Any], batch: Batch) -> Tensor:
        head = self.model.bbox_head
        scores_BA = self._labels.select(reader.class_logits(head, outputs)).sigmoid().amax(2)
        if reader.has_centerness:
            scores_BA = scores_BA * centerness(outputs)
        boxes_BA4 = full_precision(reader.boxes(head, outputs))
        threshold = suppression_threshold(self.model.test_cfg)
        return best_boxes(boxes_BA4, full_precision(scores_BA), batch.image_size_px, threshold)

    @property
    def _reader(self) -> DenseHead | None:
        return DENSE_HEADS.get(type(self.model.bbox_head).__name__)

    @property
    def _head_taps(self) -> tuple[str, ...]:
        return dense_taps(type(self.model.bbox_head).__name__)

    @property
    def _formed_parts(self) -> list[nn.Module]:
        return [self.model, self.model.bbox_head]

    def _prior_strides(self, num_levels: int) -> list[int] | None:
        return strides_of_priors(self.model.bbox_head, num_levels)


def dense_taps(head: str) -> tuple[str, ...]:
    """Return the taps beside ``fpn`` of a head's class, by its name."""
    reader = DENSE_HEADS.get(head)
    if reader is None:
        return ()
    return (*reader.taps, "head_maps", "head") if head in CUT_HEADS else reader.taps


@contextmanager
def _main_phase(head: Any) -> Iterator[None]:
    """Publish an epoch of the main phase on mmengine's message hub, unless a runner has published its own.

    TOOD's head (arXiv:2108.07755) reads the epoch there: before ``initial_epoch`` it assigns targets by ATSS.
    """
    if not hasattr(head, "initial_epoch"):
        yield
        return
    from mmengine.logging import MessageHub

    hub = MessageHub.get_current_instance()
    is_published = hub.get_info("epoch") is not None
    if not is_published:
        hub.update_info("epoch", head.initial_epoch)
    try:
        yield
    finally:
        if not is_published:
            hub.runtime_info.pop("epoch")


def suppression_threshold(test_cfg: Any) -> float:
    """Return the IoU above which detection keeps only the better one of two boxes, as the config states it."""
    suppression = (test_cfg or {}).get("nms") or {}
    return float(suppression.get("iou_threshold", _USUAL_THRESHOLD))


def strides_of_priors(head: Any, num_levels: int) -> list[int] | None:
    """Return pixels per cell as a head's anchors or points state them; None if they do not, for each level."""
    strides = getattr(getattr(head, "prior_generator", None), "strides", None)
    if strides is None or len(strides) != num_levels:
        return None
    pairs = [stride if isinstance(stride, (tuple, list)) else (stride, stride) for stride in strides]
    return [int(pair[0]) for pair in pairs] if all(pair[0] == pair[1] for pair in pairs) else None
