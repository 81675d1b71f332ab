"""FasterRCNN: proposals from a dense head, then a box head on each proposal.

Legend: B images, A anchors of an image over all levels, R proposals of a batch, K classes, 0 is the
background of torchvision's box head.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import concat_box_prediction_layers

from autokd.detectors.contract import Detections
from autokd.detectors.proposals import stacked
from autokd.detectors.torchvision.adapter import Frame, TorchvisionAdapter


class FasterRcnnDetector(TorchvisionAdapter):
    """Faster R-CNN over a pyramid, arXiv:1506.01497 and arXiv:1612.03144.

    It has the taps ``fpn`` and ``proposals``. Its class logits belong to proposals, which differ in number and place
    between images and between two detectors, so there is no (B, A, K) that a student and a teacher could
    compare; the objectness of its first stage says nothing of classes.
    """

    _class_layers = tuple(
        f"roi_heads.box_predictor.{layer}.{kind}" for layer in ("cls_score", "bbox_pred") for kind in ("weight", "bias")
    )

    rows: tuple[int, ...] | None = None
    """Row of the head of each class, if the head keeps the classes of its pretrained weights; None: 1, 2, ..."""

    def _of_our_classes(self, layers: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
        """The classes of a softmax belong together: the head keeps all of them, and ``_box_head`` chooses."""
        return layers

    @property
    def _anchor_generator(self) -> Any:
        return self.model.rpn.anchor_generator

    def _predict(self, pyramid: Mapping[str, Tensor]) -> dict[str, Any]:
        objectness, deltas = concat_box_prediction_layers(*self.model.rpn.head(list(pyramid.values())))
        return {"objectness": objectness, "deltas": deltas}

    def _losses(
        self, pyramid: Mapping[str, Tensor], raw: dict[str, Any], frame: Frame, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        rpn, roi_heads = self.model.rpn, self.model.roi_heads
        shifted = [{"boxes": target["boxes"], "labels": target["labels"] + 1} for target in targets]
        with torch.no_grad():
            anchor_labels, matched_boxes = rpn.assign_targets_to_anchors(frame.anchors, shifted)
            anchor_deltas = rpn.box_coder.encode(matched_boxes, frame.anchors)
        loss_objectness, loss_rpn_box = rpn.compute_loss(raw["objectness"], raw["deltas"], anchor_labels, anchor_deltas)
        with torch.no_grad():
            proposals, _, labels, box_deltas = roi_heads.select_training_samples(self._proposals(raw, frame), shifted)
        class_logits_RK, deltas_R4K = self._box_head(pyramid, proposals, frame)
        loss_classifier, loss_box = fastrcnn_loss(class_logits_RK, deltas_R4K, labels, box_deltas)
        return {
            "loss_objectness": loss_objectness,
            "loss_rpn_box_reg": loss_rpn_box,
            "loss_classifier": loss_classifier,
            "loss_box_reg": loss_box,
        }

    def _detections(self, pyramid: Mapping[str, Tensor], raw: dict[str, Any], frame: Frame) -> list[Detections]:
        proposals = self._proposals(raw, frame)
        class_logits_RK, deltas_R4K = self._box_head(pyramid, proposals, frame)
        found = self.model.roi_heads.postprocess_detections(class_logits_RK, deltas_R4K, proposals, frame.image_sizes)
        return [{"boxes": boxes, "scores": scores, "labels": labels - 1} for boxes, scores, labels in zip(*found)]

    def _proposals(self, raw: dict[str, Any], frame: Frame) -> list[Tensor]:
        """Return the boxes of the first stage after suppression, (at most ``num_proposals``, 4) an image; no gradient.

        They are kept in ``raw``, so that losses, tap and detections of one forward use the same boxes.
        """
        rpn = self.model.rpn
        if "proposals" not in raw:
            with torch.no_grad():
                decoded = rpn.box_coder.decode(raw["deltas"].detach(), frame.anchors)
                boxes_BA4 = decoded.view(frame.num_images, -1, 4)
                raw["proposals"], _ = rpn.filter_proposals(
                    boxes_BA4, raw["objectness"], frame.image_sizes, frame.num_anchors_by_level
                )
        return raw["proposals"]

    def _proposals_BR4(self, raw: dict[str, Any], frame: Frame) -> Tensor:
        return stacked(self._proposals(raw, frame))

    def _box_head(self, pyramid: Mapping[str, Tensor], proposals: list[Tensor], frame: Frame) -> tuple[Tensor, Tensor]:
        """Return (R, K + 1) logits, the background first, and (R, 4 (K + 1)) deltas."""
        roi_heads = self.model.roi_heads
        # torchvision's builders have other names for the levels, by which regions are pooled from some of them.
        maps = dict(zip(self._model_levels, pyramid.values()))
        logits_RM, deltas_R4M = roi_heads.box_predictor(
            roi_heads.box_head(roi_heads.box_roi_pool(maps, proposals, frame.image_sizes))
        )
        if self.rows is None:
            return logits_RM, deltas_R4M
        return _of_rows(logits_RM, deltas_R4M, self.rows)


def _of_rows(logits_RM: Tensor, deltas_R4M: Tensor, rows: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return logits and deltas of the background and some classes of M rows, with their probabilities unchanged.

    The background takes the probability of all classes that are left out: the logarithm of a sum of exponentials is the
    logit of a sum of probabilities.
    """
    kept = torch.tensor(rows, device=logits_RM.device)
    is_other = torch.ones(logits_RM.shape[1], dtype=torch.bool, device=logits_RM.device)
    is_other[kept] = False
    background_R1 = logits_RM[:, is_other].logsumexp(dim=1, keepdim=True)
    deltas_RM4 = deltas_R4M.unflatten(1, (-1, 4))
    return (
        torch.cat([background_R1, logits_RM[:, kept]], dim=1),
        torch.cat([deltas_RM4[:, :1], deltas_RM4[:, kept]], dim=1).flatten(1),
    )
