"""FBKD: imitation under an attention mask, imitation of attention, non-local imitation.

Legend: B images, C channels, H x W cells, N = H * W, D channels inside the non-local block.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.distill.peers.batches import Batch, learned
from tests.distill.peers.complex_step import Array, Leaves, absolute, detached, softmax
from tests.distill.peers.maps import adapted, convolved


def fbkd(features: float, attentions: float, relation: float, temperature: float) -> Callable[[Batch, Leaves], Array]:
    """FBKD, ICLR 2021, section 3; open-mmlab/mmrazor, losses/fbkd_loss.py and connectors/fbkd_connector.py.

    Norms are over the batch, and levels are added. The paper's formulas where they and the release differ: energies of
    absolute values, added before the softmaxes of the mask, whose channel part counts (there: signed means in the
    attention terms, the mean of two softmaxes, cells alone). Batch normalization and max-pooling of the non-local block
    are left out; inside it has a quarter of the channels (there on the two finest levels, half on the others).
    """

    def loss(batch: Batch, student: Leaves) -> Array:
        total = 0.0
        for level in batch.strides:
            t = batch.teacher[level]
            s = adapted(student[level], level, t.shape[1])
            num_images, channels, height, width = t.shape
            cells_s, channels_s = absolute(s).mean(1), absolute(s).mean((2, 3))
            cells_t, channels_t = absolute(t).mean(1), absolute(t).mean((2, 3))
            of_cells = softmax((detached(cells_s) + cells_t).reshape(num_images, -1) / temperature, 1)
            of_channels = softmax((detached(channels_s) + channels_t) / temperature, 1)
            mask = height * width * of_cells.reshape(num_images, 1, height, width)
            mask = mask * channels * of_channels[:, :, None, None]
            gap = convolved(s, f"fbkd.features.{level}", channels) - t
            total = total + features * np.sqrt((gap**2 * mask).sum())
            mixed = channels_s @ learned(f"fbkd.channels.{level}.weight", channels, channels).T
            gap = mixed + learned(f"fbkd.channels.{level}.bias", channels) - channels_t
            total = total + attentions * np.sqrt((gap**2).sum())
            gap = convolved(cells_s[:, None], f"fbkd.cells.{level}", 1, side=3) - cells_t[:, None]
            total = total + attentions * np.sqrt((gap**2).sum())
            seen_s = convolved(_non_local(s, f"fbkd.student.{level}"), f"fbkd.relation.{level}", channels)
            gap = seen_s - _non_local(t, f"fbkd.teacher.{level}")
            total = total + relation * np.sqrt((gap**2).sum())
        return total

    return loss


def _non_local(x_BCHW: Array, role: str) -> Array:
    """NonLocalBlockND with the dot product: x + W 1/N sum_j <theta x_i, phi x_j> g x_j; a quarter of the channels."""
    num_images, channels, height, width = x_BCHW.shape
    inner = channels // 4
    theta, phi, g = (
        convolved(x_BCHW, f"{role}.{name}", inner).reshape(num_images, inner, -1) for name in ("theta", "phi", "g")
    )
    similarity = np.einsum("bdi,bdj->bij", theta, phi) / (height * width)
    mixed = np.einsum("bij,bdj->bdi", similarity, g).reshape(num_images, inner, height, width)
    return x_BCHW + convolved(mixed, f"{role}.out", channels)
