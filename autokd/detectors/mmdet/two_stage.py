"""Two-stage detectors of MMDetection: proposals from a dense head, then box heads on each proposal.

Legend: B images, R proposals of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from autokd.detectors.labels import LabelMap
from autokd.detectors.mmdet.adapter import Batch, Features, HeadReading, MmdetAdapter
from autokd.detectors.mmdet.dense import strides_of_priors
from autokd.detectors.mmdet.intercept import masked_children, patched_methods
from autokd.detectors.proposals import stacked
from autokd.tensors import full_precision

_MASK_PARTS = ("mask_head", "mask_roi_extractor", "mask_iou_head", "semantic_head", "semantic_roi_extractor")


class TwoStageAdapter(MmdetAdapter):
    """Any ``TwoStageDetector``: Faster, Cascade and Mask R-CNN (arXiv:1506.01497, 1712.00726, 1703.06870).

    Class logits belong to proposals, a set of its own in each model, so there are none. Data sets have no masks: a mask
    head does not run and its weights are frozen, but they stay in the state dict, so that the config's model loads it.
    """

    def __init__(self, model: Any, architecture: str, labels: LabelMap) -> None:
        super().__init__(model, architecture, labels)
        for name in _MASK_PARTS:
            part = getattr(model.roi_head, name, None)
            if part is not None:
                part.requires_grad_(False)

    def _features(self, batch: Batch) -> Features:
        maps = self.model.extract_feat(batch.inputs_BCHW)
        maps = tuple(full_precision(map_BCHW) for map_BCHW in maps)
        return Features(maps, {"extract_feat": lambda *_: maps})

    def _read_heads(self, features: Features, batch: Batch, taps: Sequence[str]) -> HeadReading:
        wants_proposals = "proposals" in taps
        if not batch.has_targets:
            with torch.no_grad():
                found = self.model.rpn_head.predict(features.maps, batch.samples, rescale=False)
            return HeadReading(proposals=stacked([one.bboxes for one in found]) if wants_proposals else None)
        proposals: list[Tensor] = []
        loss_of_regions = self.model.roi_head.loss

        def record(maps: Any, found: list[Any], samples: Any) -> Any:
            proposals.extend(full_precision(one.bboxes) for one in found)  # now: the head removes them from ``found``
            return loss_of_regions(maps, found, samples)

        with patched_methods(self.model.roi_head, {"loss": record}):
            losses = self._losses_of_model(features, batch)
        return HeadReading(losses, proposals=stacked(proposals) if wants_proposals else None)

    def _unused_children(self) -> AbstractContextManager[None]:
        return masked_children(self.model.roi_head, _MASK_PARTS)

    @property
    def _head_taps(self) -> tuple[str, ...]:
        return ("proposals",)

    @property
    def _is_known(self) -> bool:
        return type(self.model.roi_head).__name__ in ("StandardRoIHead", "CascadeRoIHead")

    @property
    def _formed_parts(self) -> list[nn.Module]:
        return [self.model, self.model.rpn_head]

    def _prior_strides(self, num_levels: int) -> list[int] | None:
        return strides_of_priors(self.model.rpn_head, num_levels)
