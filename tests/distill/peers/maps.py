"""Losses of whole maps: FitNet, AT, SP, Gram, CWD, PKD, MGD, score-weighted l2. One level each; levels are added.

Legend: B images, C channels, H x W cells, N = H * W.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.distill.peers.batches import Batch, drawn, learned
from tests.distill.peers.complex_step import Array, Leaves, log_softmax, normalized, relu, sigmoid

OfMaps = Callable[[Array, Array, str], Array]
"""(student's map, teacher's map, level) -> loss."""


def convolved(x_BCHW: Array, role: str, num_out: int, side: int = 1) -> Array:
    """Return a convolution by the weights of ``role``, with bias and zeros beyond the edge."""
    kernel = learned(f"{role}.weight", num_out, x_BCHW.shape[1], side, side)
    edge, (height, width) = side // 2, x_BCHW.shape[2:]
    padded = np.pad(x_BCHW, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    total = learned(f"{role}.bias", num_out)[:, None, None] + np.zeros((len(x_BCHW), num_out, height, width))
    for y in range(side):
        for x in range(side):
            total = total + np.einsum("oc,bchw->bohw", kernel[:, :, y, x], padded[:, :, y : y + height, x : x + width])
    return total


def adapted(x_BCHW: Array, level: str, num_out: int) -> Array:
    """Return the student's map at the teacher's channels: a 1x1 convolution where they differ."""
    return x_BCHW if x_BCHW.shape[1] == num_out else convolved(x_BCHW, f"adapter.{level}", num_out)


def over_levels(loss: OfMaps) -> Callable[[Batch, Leaves], Array]:
    """Return the sum of a loss over the levels, with adapted maps of the student."""

    def total(batch: Batch, student: Leaves) -> Array:
        return sum(
            loss(adapted(student[level], level, batch.teacher[level].shape[1]), batch.teacher[level], level)
            for level in batch.strides
        )

    return total


def fitnet(student: Array, teacher: Array, level: str) -> Array:
    """FitNets, arXiv:1412.6550, eq. 3: mean squared error."""
    return ((student - teacher) ** 2).mean()


def at(student: Array, teacher: Array, level: str) -> Array:
    """szagoruyko/attention-transfer, utils.py, at and at_loss: (at(x) - at(y)).pow(2).mean(), beta 1000."""

    def attention(x_BCHW: Array) -> Array:
        return normalized((x_BCHW**2).mean(1).reshape(len(x_BCHW), -1), 1)

    return 1000 * ((attention(student) - attention(teacher)) ** 2).mean()


def sp(student: Array, teacher: Array, level: str) -> Array:
    """SP, arXiv:1907.09682, eqs. 1 to 4, gamma 3000; HobbitLong/RepDistiller, distiller_zoo/SP.py."""

    def similarities(x_BCHW: Array) -> Array:
        rows = x_BCHW.reshape(len(x_BCHW), -1)
        return normalized(rows @ rows.T, 1)

    return 3000 * ((similarities(teacher) - similarities(student)) ** 2).sum() / len(student) ** 2


def gram(student: Array, teacher: Array, level: str) -> Array:
    """Gatys et al., arXiv:1508.06576, eqs. 3 and 4: E = sum (G - A)^2 / (4 C^2 N^2), mean over the images; 4 E."""
    num_channels, num_cells = student.shape[1], student[0, 0].size
    energies = []
    for s_CHW, t_CHW in zip(student, teacher):
        s_CN, t_CN = s_CHW.reshape(num_channels, -1), t_CHW.reshape(num_channels, -1)
        gap = s_CN @ s_CN.T - t_CN @ t_CN.T
        energies.append((gap**2).sum() / (4 * num_channels**2 * num_cells**2))
    return 4 * sum(energies) / len(energies)


def cwd(student: Array, teacher: Array, level: str) -> Array:
    """open-mmlab/mmrazor, losses/cwd.py, ChannelWiseDivergence: sum KL over cells / (C N), tau 1, weight 10."""
    num_images, num_channels = student.shape[:2]
    s, t = (log_softmax(x.reshape(num_images * num_channels, -1), 1) for x in (student, teacher))
    return 10 * (np.exp(t) * (t - s)).sum() / (num_channels * num_images)


def pkd(weight: float) -> OfMaps:
    """open-mmlab/mmrazor, losses/pkd_loss.py, PKDLoss: mse of standardized maps / 2, unbiased deviation + 1e-6."""

    def standardized(x_BCHW: Array) -> Array:
        rows = x_BCHW.transpose(1, 0, 2, 3).reshape(x_BCHW.shape[1], -1)
        gap = rows - rows.mean(1, keepdims=True)
        deviation = np.sqrt((gap**2).sum(1, keepdims=True) / (rows.shape[1] - 1))
        return gap / (deviation + 1e-6)

    def loss(student: Array, teacher: Array, level: str) -> Array:
        return weight * ((standardized(student) - standardized(teacher)) ** 2).mean() / 2

    return loss


def mgd(weight: float, drop: float) -> OfMaps:
    """yzd-v/MGD, det/mmdet/distillation/losses/mgd.py, FeatureLoss: sum of squares / images, a generator each level.

    There a number above 1 - lambda masks its cell, here one below: the uniform numbers are the same in distribution.
    """

    def loss(student: Array, teacher: Array, level: str) -> Array:
        num_images, channels, height, width = student.shape
        kept = drawn(f"feature_map.{level}", num_images, 1, height, width) >= drop
        hidden = relu(convolved(student * kept, f"mgd.{level}.0", channels, side=3))
        generated = convolved(hidden, f"mgd.{level}.2", channels, side=3)
        return weight * ((generated - teacher) ** 2).sum() / num_images

    return loss


def score_weighted(batch: Batch, student: Leaves) -> Array:
    """ultralytics/ultralytics, nn/distill_model.py, loss_sl2, dis: 6; there times the images, as is the task's loss.

    sum w (s - t)^2 / (sum w * C), w the teacher's top class probability of the cell; the student through conv1x1 - ReLU
    - conv1x1.
    """
    first, total = 0, 0.0
    for level in batch.strides:
        teacher_BCHW = batch.teacher[level]
        num_images, channels, height, width = teacher_BCHW.shape
        logits_BAK = batch.teacher["class_logits"][:, first : first + height * width]
        first += height * width
        weights = sigmoid(logits_BAK.max(-1)).reshape(num_images, 1, height, width)
        hidden = relu(convolved(student[level], f"mlp.{level}.0", channels))
        gap = (convolved(hidden, f"mlp.{level}.2", channels) - teacher_BCHW) ** 2
        total = total + 6 * (weights * gap).sum() / (weights.sum() * channels)
    return total
