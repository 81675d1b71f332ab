"""Focal and Global Distillation and DetKDS: attention, foreground and background, global context.

Legend: B images, C channels, H x W cells, N = H * W.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.distill.peers.batches import Batch, drawn, learned
from tests.distill.peers.complex_step import Array, Leaves, absolute, greatest, normalized, relu, softmax
from tests.distill.peers.geometry import masks
from tests.distill.peers.maps import adapted

Loss = Callable[[Batch, Leaves], Array]


def attention(x_BCHW: Array, temperature: float) -> tuple[Array, Array]:
    """FGD, get_attention: N softmax over the cells (B, N), C softmax over the channels (B, C)."""
    num_images, channels, height, width = x_BCHW.shape
    size = absolute(x_BCHW)
    of_cells = height * width * softmax(size.mean(1).reshape(num_images, -1) / temperature, 1)
    return of_cells, channels * softmax(size.mean((2, 3)) / temperature, 1)


def fgd(alpha: float, beta: float, gamma: float, lambda_: float, temperature: float) -> Loss:
    """yzd-v/FGD, mmdet/distillation/losses/fgd.py, FeatureLoss, on each level.

    Boxes hold the cells of ``geometry.cells_of``, where the release has a margin besides.
    """

    def loss(batch: Batch, student: Leaves) -> Array:
        total = 0.0
        for level in batch.strides:
            t = batch.teacher[level]
            s = adapted(student[level], level, t.shape[1])
            num_images, shape = len(t), t.shape
            cells_s, channels_s = attention(s, temperature)
            cells_t, channels_t = attention(t, temperature)
            factor = cells_t.reshape(num_images, 1, *shape[2:]) * channels_t[:, :, None, None]
            squares = (s - t) ** 2 * factor
            inside, outside = (mask[:, None] for mask in masks(batch, level))
            total = total + alpha * (squares * inside).sum() / num_images
            total = total + beta * (squares * outside).sum() / num_images
            masked = absolute(channels_s - channels_t).sum() + absolute(cells_s - cells_t).sum()
            total = total + gamma * masked / num_images
            gap = with_context(s, f"fgd.student.{level}") - with_context(t, f"fgd.teacher.{level}")
            total = total + lambda_ * (gap**2).sum() / num_images
        return total

    return loss


def with_context(x_BCHW: Array, role: str) -> Array:
    """FGD, spatial_pool and get_rela_loss: x + W2 ReLU(LayerNorm(W1 c)), c the mean by a softmax of conv_mask."""
    num_images, channels, height, width = x_BCHW.shape
    inner = channels // 2
    scores = np.einsum("c,bchw->bhw", learned(f"{role}.attention.weight", channels), x_BCHW)
    share = softmax((scores + learned(f"{role}.attention.bias", 1)).reshape(num_images, -1), 1)
    context = np.einsum("bn,bcn->bc", share, x_BCHW.reshape(num_images, channels, height * width))
    hidden = context @ learned(f"{role}.first.weight", inner, channels).T + learned(f"{role}.first.bias", inner)
    gap = hidden - hidden.mean(1, keepdims=True)
    hidden = gap / np.sqrt((gap**2).mean(1, keepdims=True) + 1e-5)
    hidden = relu(hidden * learned(f"{role}.norm.weight", inner) + learned(f"{role}.norm.bias", inner))
    change = hidden @ learned(f"{role}.second.weight", channels, inner).T + learned(f"{role}.second.bias", channels)
    return x_BCHW + change[:, :, None, None]


def detkds(gamma_global: float, regions: str | None) -> Loss:
    """lliai/DetKDS, mmdet/distillation/losses/auto_detkd.py, FeatureLoss, and operations.py; gamma_fbg 2.

    Args:
        gamma_global: weight of channel attention -> max-pool 2 -> length over the samples -> l1.
        regions: "patches" (RetinaNet: patches of 4 -> length over the cells), "masked" (FCOS: random mask of 0.65 ->
            length over the channels) or None; l1 of the foreground by 2, of the background by 1.
    """

    def loss(batch: Batch, student: Leaves) -> Array:
        total = 0.0
        for level in batch.strides:
            t = batch.teacher[level]
            s = adapted(student[level], level, t.shape[1])
            gap = normalized(_pooled(_by_channels(s)), 0) - normalized(_pooled(_by_channels(t)), 0)
            total = total + gamma_global * absolute(gap).mean()
            if regions is not None:
                for name, weight, mask in zip(("foreground", "background"), (2, 1), masks(batch, level)):
                    change = _patches if regions == "patches" else _masked
                    role = f"{name}_map.{level}"
                    gap = change(s * mask[:, None], role) - change(t * mask[:, None], role)
                    total = total + weight * absolute(gap).mean()
        return total

    return loss


def _by_channels(x_BCHW: Array) -> Array:
    """trans_catt: times the root of C softmax(mean |x| / 0.5)."""
    return x_BCHW * np.sqrt(attention(x_BCHW, 0.5)[1])[:, :, None, None]


def _pooled(x_BCHW: Array) -> Array:
    """trans_multi_scale_r2: zeros up to even sizes, maximum of windows of 2."""
    x = _filled(x_BCHW, 2)
    num_images, channels, height, width = x.shape
    windows = x.reshape(num_images, channels, height // 2, 2, width // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return greatest(windows.reshape(num_images, channels, height // 2, width // 2, 4), 4)


def _patches(x_BCHW: Array, role: str) -> Array:
    """trans_local_s4 and trans_norm_HW: zeros up to multiples of 4, patches of 4 x 4 of length 1."""
    x = _filled(x_BCHW, 4)
    num_images, channels, height, width = x.shape
    patches = x.reshape(num_images, channels, height // 4, 4, width // 4, 4).transpose(0, 1, 2, 4, 3, 5)
    return normalized(patches, (4, 5))


def _masked(x_BCHW: Array, role: str) -> Array:
    """trans_mask and trans_norm_C; the same cells on both sides, where the release draws for each."""
    kept = drawn(role, len(x_BCHW), 1, *x_BCHW.shape[2:]) >= 0.65
    return normalized(x_BCHW * kept, 1)


def _filled(x_BCHW: Array, side: int) -> Array:
    return np.pad(x_BCHW, ((0, 0), (0, 0), (0, -x_BCHW.shape[2] % side), (0, -x_BCHW.shape[3] % side)))
