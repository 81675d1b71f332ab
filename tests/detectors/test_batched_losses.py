"""Losses without a synchronizing call, against torchvision's own on the same outputs of a head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autokd.detectors.torchvision.batched_losses import can_batch, fcos_losses, generalized_iou_loss, retinanet_losses
from autokd.targets import CheckedTargets, labels_above, part_of
from autokd.testing.synchronizing import SynchronizingCalls

NUM_CLASSES = 5


@pytest.fixture
def crowded() -> list[dict[str, Tensor]]:
    """Boxes that overlap, a tiny one that no anchor overlaps much, an image with none, equal boxes of two classes."""
    return [
        {"boxes": torch.tensor([[10.0, 12, 30, 40], [12, 10, 34, 44], [50, 20, 110, 80]]), "labels": torch.arange(3)},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
        {
            "boxes": torch.tensor([[5.0, 50, 7, 53], [60, 8, 92, 40], [60, 8, 92, 40]]),
            "labels": torch.tensor([4, 1, 3]),
        },
    ]


@pytest.fixture
def empty() -> list[dict[str, Tensor]]:
    return [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)} for _ in range(3)]


def _with_gradients(losses: dict[str, Tensor], raw: dict[str, Tensor]) -> list[Tensor]:
    weighted = sum(factor * loss for factor, loss in zip((1.0, 0.5, 2.0), losses.values(), strict=False))
    return list(torch.autograd.grad(weighted, list(raw.values()), allow_unused=True, materialize_grads=True))


def _raw_outputs(detector, images_BCHW):
    """Return the model, its frame, and lively outputs of its head as leaves."""
    captured = {}

    def keep(pyramid, raw, frame, targets):
        captured.update(raw=raw, frame=frame)
        return {"task": next(iter(raw.values())).sum()}

    detector._losses = keep
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    detector(images_BCHW, [target] * len(images_BCHW))
    raw = {name: torch.randn_like(value).requires_grad_() for name, value in captured["raw"].items()}
    if "bbox_ctrness" in raw:  # FCOS's distances come out of a ReLU
        raw["bbox_regression"] = torch.rand_like(raw["bbox_regression"]).mul(3).requires_grad_()
    return detector.model, captured["frame"], raw


def _batched(model, frame, raw, targets) -> dict[str, Tensor]:
    if "bbox_ctrness" in raw:
        return fcos_losses(model, targets, raw, frame.anchors_A4, frame.num_anchors_by_level)[0]
    return retinanet_losses(model, targets, raw, frame.anchors_A4)


def _torchvisions(model, frame, raw, targets) -> dict[str, Tensor]:
    if "bbox_ctrness" in raw:
        return model.compute_loss(targets, raw, frame.anchors, frame.num_anchors_by_level)
    return model.compute_loss(targets, raw, frame.anchors)


@pytest.mark.parametrize("which", ["crowded", "empty"])
@pytest.mark.parametrize("name", ["fcos", "l1", "smooth_l1", "giou"])
def test_values_and_gradients_are_torchvisions(name, which, make_detector, images_BCHW, request):
    targets = request.getfixturevalue(which)
    architecture = "fcos" if name == "fcos" else "retinanet"
    model, frame, raw = _raw_outputs(make_detector(architecture), images_BCHW)
    if architecture == "retinanet":
        model.head.regression_head._loss_type = name
        assert can_batch(model)
    ours, theirs = (losses(model, frame, raw, targets) for losses in (_batched, _torchvisions))
    assert set(ours) == set(theirs)
    for key, loss in theirs.items():
        torch.testing.assert_close(ours[key], loss, rtol=1e-5, atol=1e-6)
    order = sorted(theirs)
    pairs = zip(*(_with_gradients({k: losses[k] for k in order}, raw) for losses in (ours, theirs)), strict=True)
    for mine, own in pairs:
        torch.testing.assert_close(mine, own, rtol=1e-4, atol=1e-7)


def test_generalized_iou_of_boxes_apart_within_and_equal():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 4, 4], [1, 1, 3, 3]])
    others = torch.tensor([[4.0, 0, 6, 2], [1, 1, 2, 2], [1, 1, 3, 3]])
    # Apart: 1 - 0 + (12 - 8) / 12; within: 1 - 1 / 16; equal: 0.
    torch.testing.assert_close(generalized_iou_loss(boxes, others), torch.tensor([4 / 3, 15 / 16, 0.0]))


@pytest.mark.parametrize(("architecture", "most"), [("fcos", 0), ("retinanet", 2)])
def test_losses_of_checked_targets_hardly_wait(architecture, most, make_detector, images_BCHW, crowded, monkeypatch):
    monkeypatch.setattr("autokd.tensors.computes_asynchronously", lambda device: True)
    detector = make_detector(architecture)
    checked = CheckedTargets(crowded, NUM_CLASSES)
    detector(images_BCHW, checked)  # anchors are made once
    with SynchronizingCalls() as calls:
        torch.stack(list(detector(images_BCHW, checked).losses.values())).sum().backward()
    # RetinaNet's two are constants of torchvision's ``BoxCoder.decode_single``.
    assert calls.total <= most, calls.by_name


def test_counter_sees_torchvisions_own_calls(make_detector, images_BCHW, crowded):
    detector = make_detector("retinanet")
    with SynchronizingCalls() as calls:
        detector(images_BCHW, crowded)
    assert calls.by_name["nonzero"] + calls.by_name["index"] >= 3 * len(crowded)


@pytest.mark.parametrize(
    ("call", "count"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: torch.where(x > 0)[0], 1),
        (lambda x: bool((x > 0).any()), 1),
        (lambda x: torch.where(x > 0, x, 0.0), 0),
        (lambda x: x.clone().masked_fill_(x > 0, 0.0), 0),
        (lambda x: x[:2].amax(), 0),
    ],
)
def test_each_waiting_call_counts_once(call, count):
    with SynchronizingCalls() as calls:
        call(torch.tensor([1.0, -1, 2]))
    assert calls.total == count, calls.by_name


def test_checked_targets_stay_checked_in_parts_and_know_their_classes(crowded):
    checked = CheckedTargets(crowded, NUM_CLASSES)
    part = part_of(checked, slice(1, 3))
    assert isinstance(part, CheckedTargets)
    assert part.num_classes == NUM_CLASSES
    assert not isinstance(part_of(crowded, slice(1, 3)), CheckedTargets)
    boxes, labels = (torch.cat([target[key] for target in crowded]) for key in ("boxes", "labels"))
    assert labels_above(boxes, labels) == 5
    assert labels_above(boxes.flip(1), labels) is None
    assert labels_above(boxes, labels - 1) is None
    assert labels_above(boxes[:0], labels[:0]) == 0
