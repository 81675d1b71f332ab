"""The one table of supplied operators: name in ``mmcv._ext`` -> function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autokd.mmcv_ops.attention import ms_deform_attn_backward, ms_deform_attn_forward
from autokd.mmcv_ops.deformable import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from autokd.mmcv_ops.focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from autokd.mmcv_ops.roi_align import roi_align_backward, roi_align_forward
from autokd.mmcv_ops.suppression import nms, softnms


def get_compiler_version() -> str:
    """Return the text of "MMCV Compiler" in mmengine's log of the environment."""
    return "none (operators supplied by AutoKD)"


def get_compiling_cuda_version() -> str:
    """Return the text of "MMCV CUDA Compiler" in mmengine's log of the environment."""
    return "not available"


OPERATORS: dict[str, Callable[..., Any]] = {
    operator.__name__: operator
    for operator in (
        nms,
        softnms,
        roi_align_forward,
        roi_align_backward,
        deform_conv_forward,
        deform_conv_backward_input,
        deform_conv_backward_parameters,
        modulated_deform_conv_forward,
        modulated_deform_conv_backward,
        ms_deform_attn_forward,
        ms_deform_attn_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}
