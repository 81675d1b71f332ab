"""Deformable convolution (arXiv:1703.06211, eq. 2) and its modulated form (arXiv:1811.11168, eq. 1), by torchvision's.

Shapes: B images, C input channels, O output channels, H, W of the input, h, w of the output, k = kernel height * width,
G offset groups. Offsets are (y, x) a kernel cell, in cells of the input: (B, G * 2k, h, w); masks (B, G * k, h, w).
The buffers ``columns`` and ``ones`` and ``im2col_step`` serve mmcv's kernels only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torchvision.ops

from autokd.mmcv_ops.precision import computed


class _Window(NamedTuple):
    """Stride, padding and dilation of a kernel, each as (vertical, horizontal)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def deform_conv_forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    offset: torch.Tensor,
    output: torch.Tensor,
    columns: torch.Tensor,
    ones: torch.Tensor,
    *,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write ``input`` (B, C, H, W) convolved with ``weight`` (O, C / group, kH, kW) to ``output`` (B, O, h, w)."""
    window = _Window((dH, dW), (padH, padW), (dilationH, dilationW))
    output.copy_(_convolve(computed(input), computed(offset), computed(weight), None, None, window))


def deform_conv_backward_input(
    input: torch.Tensor,
    offset: torch.Tensor,
    gradOutput: torch.Tensor,
    gradInput: torch.Tensor,
    gradOffset: torch.Tensor,
    weight: torch.Tensor,
    columns: torch.Tensor,
    *,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the gradients of input and offsets for ``gradOutput`` (B, O, h, w) to ``gradInput`` and ``gradOffset``."""
    window = _Window((dH, dW), (padH, padW), (dilationH, dilationW))
    gradients = _gradients([input, offset, weight], [0, 1], gradOutput, window)
    gradInput.copy_(gradients[0])
    gradOffset.copy_(gradients[1])


def deform_conv_backward_parameters(
    input: torch.Tensor,
    offset: torch.Tensor,
    gradOutput: torch.Tensor,
    gradWeight: torch.Tensor,
    columns: torch.Tensor,
    ones: torch.Tensor,
    *,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the kernel's gradient for ``gradOutput`` (B, O, h, w) to ``gradWeight``."""
    window = _Window((dH, dW), (padH, padW), (dilationH, dilationW))
    # The weight's value has no part in its own gradient; its shape comes from gradWeight.
    (gradient,) = _gradients([input, offset, torch.zeros_like(gradWeight)], [2], gradOutput, window)
    gradWeight.add_(gradient.to(gradWeight.dtype), alpha=scale)


def modulated_deform_conv_forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    ones: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    output: torch.Tensor,
    columns: torch.Tensor,
    *,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """As ``deform_conv_forward``, each sample multiplied by its mask, plus ``bias`` (O,) if there is one."""
    window = _Window((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    added = computed(bias) if with_bias else None
    output.copy_(_convolve(computed(input), computed(offset), computed(weight), computed(mask), added, window))


def modulated_deform_conv_backward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    ones: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    columns: torch.Tensor,
    grad_input: torch.Tensor,
    grad_weight: torch.Tensor,
    grad_bias: torch.Tensor,
    grad_offset: torch.Tensor,
    grad_mask: torch.Tensor,
    grad_output: torch.Tensor,
    *,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the five gradients for ``grad_output`` (B, O, h, w)."""
    window = _Window((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    operands, targets = [input, offset, weight, mask], [grad_input, grad_offset, grad_weight, grad_mask]
    if with_bias:
        operands.append(bias)
        targets.append(grad_bias)
    gradients = _gradients(operands, list(range(len(operands))), grad_output, window)
    for target, gradient in zip(targets, gradients):
        target.copy_(gradient)


def _gradients(
    operands: list[torch.Tensor], wanted: list[int], grad_output: torch.Tensor, window: _Window
) -> tuple[torch.Tensor, ...]:
    """Return the gradients of the wanted among input, offset, weight, mask, bias (the last two may be left out)."""
    with torch.enable_grad():
        leaves = [computed(operand).detach() for operand in operands]
        for index in wanted:
            leaves[index].requires_grad_()
        given = [*leaves, None, None]
        convolved = _convolve(leaves[0], leaves[1], leaves[2], given[3], given[4], window)
        return torch.autograd.grad(convolved, [leaves[index] for index in wanted], computed(grad_output))


def _convolve(
    input: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    mask: torch.Tensor | None,
    bias: torch.Tensor | None,
    window: _Window,
) -> torch.Tensor:
    if mask is not None:
        height, width = (_output_size(input, weight, window, axis) for axis in (0, 1))
        offset, mask = _leading(offset, height, width), _leading(mask, height, width)
    # At an offset of NaN torchvision's kernel reads outside the map and the process dies. A model of diverged weights
    # has to give NaN instead, which adding 0 * NaN does.
    blemish = offset.detach().sum() * 0
    # torchvision reads both numbers of groups off the shapes of weight and offset.
    convolved = torchvision.ops.deform_conv2d(
        input, offset.nan_to_num(), weight, bias, window.stride, window.padding, window.dilation, mask
    )
    return convolved + blemish


def _output_size(input: torch.Tensor, weight: torch.Tensor, window: _Window, axis: int) -> int:
    reach = window.dilation[axis] * (weight.shape[2 + axis] - 1) + 1
    return (input.shape[2 + axis] + 2 * window.padding[axis] - reach) // window.stride[axis] + 1


def _leading(values: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the numbers of each image that mmcv's modulated kernels read: the first of a (channels, h, w) block.

    The kernels take the block's size from the input. DyHead hands in offsets of a finer map, whose first numbers
    they then read as if densely packed; a head that was trained so must be run so. Elsewhere nothing changes.
    """
    num_images, channels = values.shape[:2]
    if values.shape[2:] == (height, width) or values[0].numel() < channels * height * width:
        return values
    return values.flatten(1)[:, : channels * height * width].reshape(num_images, channels, height, width)
