"""The layout of maps in memory: channels-last where it pays and is safe.

Legend: B images, C channels, H x W cells.
"""

from __future__ import annotations

import torch
from torch import nn

LEAST_CHANNELS = 16
"""A CPU runs channels-last only if every convolution but the stem reads at least as many channels."""
_RGB_CHANNELS = 3


def memory_format_of(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Return the layout in which a model runs on a device.

    Args:
        model: the plain model; its convolutions are looked at, not its weights.
        device: where the weights are.

    Returns:
        ``torch.channels_last`` on anything but a CPU, and on a CPU if no convolution is narrower than
        ``LEAST_CHANNELS``; else ``torch.contiguous_format``.
    """
    if device.type != "cpu":
        return torch.channels_last
    # Safety decides, since channels-last pays at every width. Time of a training step of an FCOS relative to contiguous
    # maps, one thread on AVX2, images of 96 and 256 px: width 8 .87 and .88, 16 .87 and .81, 24 .89 and .89, 32 .96 and
    # .97, 64 .95 and .85. But torch 2.15's oneDNN (3.13) is wrong for narrow convolutions: the backward pass of a
    # strided 1x1 convolution ends in a segmentation fault with fewer than 8 input channels on AVX2, and with fewer than
    # 16 on AVX-512, where further narrow ones give wrong numbers. One bound for all processors keeps their numbers
    # comparable. The three channels of an RGB stem are sound on both.
    convolutions = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]
    is_wide = all(conv.in_channels >= LEAST_CHANNELS or conv.in_channels == _RGB_CHANNELS for conv in convolutions)
    return torch.channels_last if is_wide else torch.contiguous_format
