"""Batch normalisation over the global batch, where several processes share a training.

torch's ``SyncBatchNorm`` does this on a GPU only, and DDP refuses it elsewhere; on a CPU this module computes the same
from plain operations. Group norms look at one image and need nothing.

Legend: B images of this rank, C channels, H x W cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm as SynchronisedOnGpu

from autokd.training.parallel.shares import Share


@dataclass
class CurrentShare:
    """The share that is being computed; one object is held by all norms of a model."""

    share: Share | None = None


class _AllSum(torch.autograd.Function):
    """The sum over ranks, whose gradient every rank's later values bring."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(nn.BatchNorm2d):
    """A ``BatchNorm2d`` whose statistics in training are those of the images of all ranks.

    Parameters, buffers and their names are the same. In eval mode, and where a batch is not split, it is plain.
    """

    def __init__(self, norm: nn.BatchNorm2d, current: CurrentShare) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum or 0.0, norm.affine, norm.track_running_stats)
        self.momentum = norm.momentum
        self.training = norm.training
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self._current = current

    def forward(self, input: Tensor) -> Tensor:  # torch's name for it
        share = self._current.share
        if not self.training or share is None or not share.is_split:
            return super().forward(input)
        if input.is_cuda:
            return self._normalised_by_kernels(input)
        return self._normalised(input, len(share.whole))

    def _normalised_by_kernels(self, map_BCHW: Tensor) -> Tensor:
        result: Tensor = SynchronisedOnGpu.apply(
            map_BCHW,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.eps,
            self._count_batch(),
            dist.group.WORLD,
            dist.get_world_size(),
        )
        return result

    def _normalised(self, map_BCHW: Tensor, num_images: int) -> Tensor:
        height, width = map_BCHW.shape[-2:]
        count = num_images * height * width
        mean_C = _AllSum.apply(map_BCHW.sum((0, 2, 3))) / count
        centred_BCHW = map_BCHW - mean_C[:, None, None]
        variance_C = _AllSum.apply(centred_BCHW.square().sum((0, 2, 3))) / count
        self._follow(mean_C.detach(), variance_C.detach() * (count / max(count - 1, 1)))
        scale_C = torch.rsqrt(variance_C + self.eps)
        if not self.affine:
            return centred_BCHW * scale_C[:, None, None]
        return centred_BCHW * (scale_C * self.weight)[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, variance_C: Tensor) -> None:
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        rate = self._count_batch()
        self.running_mean.lerp_(mean_C, rate)
        self.running_var.lerp_(variance_C, rate)

    def _count_batch(self) -> float:
        """Count this batch; the part of its statistics in the running ones."""
        if not self.track_running_stats:
            return 0.0
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)


def share_batch_norms(model: nn.Module) -> CurrentShare:
    """Replace every trained batch norm of ``model`` by a shared one; set the result's ``share`` before a forward."""
    current = CurrentShare()
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, SharedBatchNorm(child, current))
    return current
