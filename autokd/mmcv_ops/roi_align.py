"""RoIAlign with averages (Mask R-CNN, arXiv:1703.06870, section 3), by torchvision's.

Shapes: B images, C channels, H, W of the map; N regions (image index, x1, y1, x2, y2) in pixels of the image;
h, w cells per region.
"""

from __future__ import annotations

import torch
import torchvision.ops

from autokd.errors import DetectorError
from autokd.mmcv_ops.precision import computed

AVERAGE = 1
"""mmcv's number for averages within a cell; 0 would be the maximum, which torchvision has not."""


def roi_align_forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    output: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write to ``output`` (N, C, h, w) the averages of the map ``input`` (B, C, H, W) within cells of ``rois`` (N, 5).

    Raises:
        DetectorError: maxima instead of averages are asked for.
    """
    if pool_mode != AVERAGE:
        raise DetectorError(
            "RoIAlign with pool_mode='max' needs mmcv's compiled operators; AutoKD supplies pool_mode='avg' only. "
            "Remedy: set pool_mode='avg' in the config's roi_layer, or install a compiled mmcv (docs/mmdetection.md)."
        )
    size = (aligned_height, aligned_width)
    pooled = torchvision.ops.roi_align(computed(input), computed(rois), size, spatial_scale, sampling_ratio, aligned)
    output.copy_(pooled)


def roi_align_backward(
    grad_output: torch.Tensor,
    rois: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    grad_input: torch.Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write to ``grad_input`` (B, C, H, W) the gradient of the map for ``grad_output`` (N, C, h, w)."""
    size = (aligned_height, aligned_width)
    with torch.enable_grad():
        # The averages are linear in the map, so that the gradient is the same at a map of zeros.
        zeros = torch.zeros_like(computed(grad_input)).requires_grad_()
        pooled = torchvision.ops.roi_align(zeros, computed(rois), size, spatial_scale, sampling_ratio, aligned)
        (gradient,) = torch.autograd.grad(pooled, zeros, computed(grad_output))
    grad_input.copy_(gradient)
