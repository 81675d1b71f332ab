"""Attention that samples a few points of several maps (Deformable DETR, arXiv:2010.04159, eq. 3).

mmcv carries the definition in plain PyTorch and uses it on a CPU; on a GPU it calls the compiled operator, which is
answered here with the same definition.

Shapes: B images, S cells of all maps, M heads, D channels a head, Q queries, L maps, P points.
"""

from __future__ import annotations

import torch

from autokd.mmcv_ops.precision import computed


def ms_deform_attn_forward(
    value: torch.Tensor,
    value_spatial_shapes: torch.Tensor,
    value_level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    *,
    im2col_step: int,
) -> torch.Tensor:
    """Return what the queries see, (B, Q, M * D).

    value (B, S, M, D), spatial shapes (L, 2); locations (B, Q, M, L, P, 2), (x, y) in [0, 1]; weights (B, Q, M, L, P).
    """
    attended = _attend(computed(value), value_spatial_shapes, computed(sampling_locations), computed(attention_weights))
    return attended.to(value.dtype)


def ms_deform_attn_backward(
    value: torch.Tensor,
    value_spatial_shapes: torch.Tensor,
    value_level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    grad_output: torch.Tensor,
    grad_value: torch.Tensor,
    grad_sampling_loc: torch.Tensor,
    grad_attn_weight: torch.Tensor,
    *,
    im2col_step: int,
) -> None:
    """Write the three gradients for ``grad_output`` (B, Q, M * D), each in the shape of what it belongs to."""
    with torch.enable_grad():
        inputs = [computed(x).detach().requires_grad_() for x in (value, sampling_locations, attention_weights)]
        attended = _attend(inputs[0], value_spatial_shapes, inputs[1], inputs[2])
        gradients = torch.autograd.grad(attended, inputs, computed(grad_output))
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients):
        target.copy_(gradient)


def _attend(value: torch.Tensor, shapes: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    # As plain numbers: iterating over a tensor on a GPU waits for it at each element.
    attended: torch.Tensor = multi_scale_deformable_attn_pytorch(value, shapes.tolist(), locations, weights)
    return attended
