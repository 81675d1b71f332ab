"""Focal loss on logits (arXiv:1708.02002, eq. 5), which mmcv compiles for GPUs.

Shapes: N places, K classes; targets 0 .. K - 1, and K for background. ``weight`` is (K,), or empty for none.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from autokd.mmcv_ops.precision import computed


def sigmoid_focal_loss_forward(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    output: torch.Tensor,
    *,
    gamma: float,
    alpha: float,
) -> None:
    """Write each entry of the loss to ``output`` (N, K).

    It is -alpha (1 - p)^gamma log p at the target's class and -(1 - alpha) p^gamma log(1 - p) elsewhere.
    """
    logits = computed(input)
    p = logits.sigmoid()
    positive = -alpha * (1 - p) ** gamma * functional.logsigmoid(logits)
    negative = -(1 - alpha) * p**gamma * functional.logsigmoid(-logits)
    output.copy_(torch.where(_is_target(input, target), positive, negative) * _weight_of(target, weight))


def sigmoid_focal_loss_backward(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    grad_input: torch.Tensor,
    *,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative of each entry of the loss by its logit to ``grad_input`` (N, K).

    As p' = p (1 - p), it is alpha (1 - p)^gamma (gamma p log p - (1 - p)) at the target's class and
    (1 - alpha) p^gamma (p - gamma (1 - p) log(1 - p)) elsewhere: no power of a number near zero is divided by.
    """
    logits = computed(input)
    p = logits.sigmoid()
    positive = alpha * (1 - p) ** gamma * (gamma * p * functional.logsigmoid(logits) - (1 - p))
    negative = (1 - alpha) * p**gamma * (p - gamma * (1 - p) * functional.logsigmoid(-logits))
    grad_input.copy_(torch.where(_is_target(input, target), positive, negative) * _weight_of(target, weight))


def _is_target(input_NK: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    return target_N[:, None] == torch.arange(input_NK.shape[1], device=input_NK.device)


def _weight_of(target_N: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return (N, 1): the weight of each place's class, 1 for background."""
    if not weight.numel():
        return weight.new_ones(())
    return torch.cat((weight, weight.new_ones(1)))[target_N][:, None]
