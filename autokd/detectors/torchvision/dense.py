"""FCOS and RetinaNet: one head over every cell of every level.

Legend: B images, A candidate boxes of an image over all levels, K classes, R proposals of an image.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autokd import tensors
from autokd.detector_outputs import HeadMaps
from autokd.detectors.contract import Detections
from autokd.detectors.proposals import best_boxes
from autokd.detectors.torchvision.adapter import Frame, TorchvisionAdapter
from autokd.detectors.torchvision.batched_losses import can_batch, fcos_losses, retinanet_losses
from autokd.detectors.torchvision.cross_head import FrozenCrossHead, maps_at_cut


class DenseDetector(TorchvisionAdapter):
    """A single-stage detector: class logits and boxes for each anchor, levels concatenated fine to coarse."""

    _class_layers = ("head.classification_head.cls_logits.weight", "head.classification_head.cls_logits.bias")

    def _of_our_classes(self, layers: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
        """Each class has logits of its own, so that rows of others, and of an unused background, are left out."""
        per_cell = self.layout.num_anchors_per_cell
        if not layers or any(value.shape[0] % per_cell for value in layers.values()):
            return layers  # another head altogether, which is refused with its shapes
        num_rows = next(iter(layers.values())).shape[0] // per_cell
        rows = torch.tensor(self.classes_of(where).rows(num_rows, str(where)))
        # Channels of the layer: anchor by anchor, the classes of each.
        return {
            name: value.unflatten(0, (per_cell, num_rows))[:, rows].flatten(0, 1).contiguous()
            for name, value in layers.items()
        }

    @property
    def _anchor_generator(self) -> Any:
        return self.model.anchor_generator

    def _predict(self, pyramid: Mapping[str, Tensor]) -> dict[str, Any]:
        return self.model.head(list(pyramid.values()))

    def _class_logits(self, raw: dict[str, Any]) -> Tensor:
        return raw["cls_logits"]

    def _boxes(self, raw: dict[str, Any], frame: Frame) -> Tensor:
        return self._decode(self.model.box_coder, raw["bbox_regression"], frame.anchors_A4)

    @staticmethod
    @abstractmethod
    def _decode(box_coder: Any, deltas_BA4: Tensor, anchors_A4: Tensor) -> Tensor:
        """(B, A, 4) xyxy px from what the box branch gives."""

    def class_scores(self, raw: dict[str, Any]) -> Tensor:
        """Return the scores of detection, (B, A, K) in [0, 1].

        Args:
            raw: outputs of the head by torchvision's names.
        """
        scores_BAK: Tensor = raw["cls_logits"].sigmoid()
        return scores_BAK

    def _scores(self, raw: dict[str, Any]) -> Tensor:
        """Return (B, A): the score of the best class, as detection ranks it."""
        return raw["cls_logits"].detach().amax(dim=2).sigmoid()

    def _proposals_BR4(self, raw: dict[str, Any], frame: Frame) -> Tensor:
        boxes_BA4 = self._boxes({name: value.detach() for name, value in raw.items()}, frame)
        return best_boxes(boxes_BA4, self._scores(raw), frame.image_size_px, self.model.nms_thresh)

    @contextmanager
    def _recording_head_maps(self, pyramid: Mapping[str, Tensor]) -> Iterator[HeadMaps | None]:
        with maps_at_cut(self.model.head, pyramid) as maps:
            yield maps

    def _cross_head(self) -> FrozenCrossHead:
        decode = partial(self._decode, self.model.box_coder)
        return FrozenCrossHead(self.model.head, self._anchor_table, self.strides, decode)

    def _detections(self, pyramid: Mapping[str, Tensor], raw: dict[str, Any], frame: Frame) -> list[Detections]:
        by_level = {name: list(value.split(frame.num_anchors_by_level, dim=1)) for name, value in raw.items()}
        anchors = [list(frame.anchors_A4.split(frame.num_anchors_by_level))] * frame.num_images
        return self.model.postprocess_detections(by_level, anchors, frame.image_sizes)


class FcosDetector(DenseDetector):
    """FCOS, arXiv:1904.01355: distances to the four sides and a centerness for each cell."""

    @staticmethod
    def _decode(box_coder: Any, deltas_BA4: Tensor, anchors_A4: Tensor) -> Tensor:
        return box_coder.decode(deltas_BA4, anchors_A4)

    def class_scores(self, raw: dict[str, Any]) -> Tensor:
        """Return the geometric mean with centerness, (B, A, K)."""
        return (super().class_scores(raw) * raw["bbox_ctrness"].sigmoid()).sqrt()

    def _scores(self, raw: dict[str, Any]) -> Tensor:
        """The geometric mean with centerness."""
        return (super()._scores(raw) * raw["bbox_ctrness"].detach().squeeze(2).sigmoid()).sqrt()

    def _losses(
        self, pyramid: Mapping[str, Tensor], raw: dict[str, Any], frame: Frame, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        if not tensors.computes_asynchronously(frame.anchors_A4.device):
            return self.model.compute_loss(targets, raw, frame.anchors, frame.num_anchors_by_level)
        losses, num_positive = fcos_losses(self.model, targets, raw, frame.anchors_A4, frame.num_anchors_by_level)
        if self._counts is not None:
            self._counts.append(num_positive)
        return losses

    _counts: list[Tensor] | None = None
    """Numbers of positives within ``counting_positives``."""

    @contextmanager
    def counting_positives(self) -> Iterator[list[Tensor]]:
        """Count cells that are assigned to an object: all three losses are divided by their number in the batch."""
        # torchvision computes the number inside ``FCOSHead.compute_loss`` and returns only losses, so the method is
        # replaced on the instance for the time of the context.
        head = self.model.head
        self._counts = counts = list[Tensor]()
        compute_loss = head.compute_loss

        def counted(targets: Any, outputs: Any, anchors: Any, matched_idxs: list[Tensor]) -> dict[str, Tensor]:
            counts.append(torch.stack([(matched >= 0).sum() for matched in matched_idxs]).sum())
            return compute_loss(targets, outputs, anchors, matched_idxs)

        head.compute_loss = counted
        try:
            yield counts
        finally:
            self._counts = None
            del head.compute_loss  # the instance's; the method of the class is visible again


class RetinaNetDetector(DenseDetector):
    """RetinaNet, arXiv:1708.02002: focal loss over nine anchors a cell."""

    @staticmethod
    def _decode(box_coder: Any, deltas_BA4: Tensor, anchors_A4: Tensor) -> Tensor:
        return box_coder.decode(deltas_BA4, [anchors_A4] * len(deltas_BA4)).view(len(deltas_BA4), -1, 4)

    def _losses(
        self, pyramid: Mapping[str, Tensor], raw: dict[str, Any], frame: Frame, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        if tensors.computes_asynchronously(frame.anchors_A4.device) and can_batch(self.model):
            return retinanet_losses(self.model, targets, raw, frame.anchors_A4)
        return self.model.compute_loss(targets, raw, frame.anchors)
