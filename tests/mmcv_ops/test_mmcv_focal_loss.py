"""The focal loss through mmcv.ops, beside torchvision's on one-hot targets and a value by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.ops

CLASSES = 4


@pytest.fixture
def logits(generator) -> torch.Tensor:
    return torch.randn(7, CLASSES, generator=generator, dtype=torch.float64) * 3


TARGETS = torch.tensor([0, 1, 2, 3, CLASSES, 2, CLASSES])
"""Class CLASSES is background."""


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (0.5, 0.8)])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_focal_loss_has_torchvisions_values_and_gradients(mmcv_ops, logits, gamma, alpha, reduction):
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found = mmcv_ops.sigmoid_focal_loss(ours, TARGETS, gamma, alpha, None, reduction)
    one_hot = torch.nn.functional.one_hot(TARGETS, CLASSES + 1)[:, :CLASSES].double()
    expected = torchvision.ops.sigmoid_focal_loss(theirs, one_hot, alpha, gamma, "none")
    # mmcv's mean is over places, torchvision's over entries.
    expected = {"none": expected, "sum": expected.sum(), "mean": expected.sum() / len(TARGETS)}[reduction]
    found.sum().backward()
    expected.sum().backward()
    assert torch.allclose(found, expected, atol=1e-10)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-10)


def test_focal_loss_of_one_place_is_the_formula_by_hand(mmcv_ops):
    logit = math.log(3)  # p = 3/4
    found = mmcv_ops.sigmoid_focal_loss(torch.tensor([[logit, logit]]), torch.tensor([0]), 2.0, 0.25, None, "none")
    assert found[0].tolist() == pytest.approx(
        [-0.25 / 16 * math.log(3 / 4), -0.75 * 9 / 16 * math.log(1 / 4)], rel=1e-5
    )


def test_class_weights_multiply_all_entries_of_a_place(mmcv_ops, logits):
    weight = torch.tensor([2.0, 3.0, 5.0, 7.0], dtype=torch.float64)
    targets = TARGETS.clamp(max=CLASSES - 1)
    plain = mmcv_ops.sigmoid_focal_loss(logits, targets, 2.0, 0.25, None, "none")
    leaf = logits.clone().requires_grad_()
    weighted = mmcv_ops.sigmoid_focal_loss(leaf, targets, 2.0, 0.25, weight, "none")
    assert torch.allclose(weighted, plain * weight[targets][:, None])
    reference = logits.clone().requires_grad_()
    (
        mmcv_ops.sigmoid_focal_loss(reference, targets, 2.0, 0.25, None, "none") * weight[targets][:, None]
    ).sum().backward()
    weighted.sum().backward()
    assert torch.allclose(leaf.grad, reference.grad)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_stays_finite_at_extreme_logits(mmcv_ops, gamma):
    logits = torch.tensor([[-200.0, 200.0], [200.0, -200.0]], requires_grad=True)
    loss = mmcv_ops.sigmoid_focal_loss(logits, torch.tensor([0, 0]), gamma, 0.25, None, "sum")
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
