"""Batch normalization over the global batch of a training that several processes share.

torch's ``SyncBatchNorm`` computes the same on a GPU, and refuses to work elsewhere; on a CPU this module computes it
from plain operations. Group norms and layer norms look at one image and need nothing.

Legend: B images of this rank, C channels, H x W cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm as SynchronizedOnGpu

from autokd.training.shards import BatchShard


@dataclass
class CurrentShard:
    """The shard of the batch in work: one object that all norms of a model hold, and whose value each step replaces."""

    shard: BatchShard | None = None


class _AllSum(torch.autograd.Function):
    """The sum over ranks, whose gradient is summed over ranks too.

    Unlike ``collectives.sum_over_ranks``: what is computed from the sum, a mean, differs from rank to rank afterwards,
    so that each rank knows only its part of the gradient on it.
    """

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

    In eval mode, and while a batch is not split, it is torch's.
    """

    def __init__(self, norm: nn.BatchNorm2d, current: CurrentShard) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum or 0.0, norm.affine, norm.track_running_stats)
        # BatchNorm2d's constructor takes no None, which means a plain average over all batches.
        self.momentum = norm.momentum
        self.training = norm.training
        # The same Parameter objects, not copies: an average of weights or a list of frozen parts may hold them.
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self._current = current

    def forward(self, input: Tensor) -> Tensor:  # torch's name for it
        shard = self._current.shard
        if not self.training or shard is None or not shard.is_split:
            return super().forward(input)
        if input.is_cuda:
            return self._normalized_by_kernels(input)
        return self._normalized(input, len(shard.global_pairs))

    def _normalized_by_kernels(self, map_BCHW: Tensor) -> Tensor:
        result: Tensor = SynchronizedOnGpu.apply(
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

    def _normalized(self, map_BCHW: Tensor, num_images: int) -> Tensor:
        height, width = map_BCHW.shape[-2:]
        count = num_images * height * width
        # Two exchanges: the mean first, then the variance about it. E[x^2] - E[x]^2 would need one, and loses all
        # digits where the mean is large against the deviation.
        mean_C = _AllSum.apply(map_BCHW.sum((0, 2, 3))) / count
        centered_BCHW = map_BCHW - mean_C[:, None, None]
        variance_C = _AllSum.apply(centered_BCHW.square().sum((0, 2, 3))) / count
        # Running variances are unbiased (n - 1), those that normalize are not, as in torch.
        self._follow(mean_C.detach(), variance_C.detach() * (count / max(count - 1, 1)))
        scale_C = torch.rsqrt(variance_C + self.eps)
        if not self.affine:
            return centered_BCHW * scale_C[:, None, None]
        return centered_BCHW * (scale_C * self.weight)[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, variance_C: Tensor) -> None:
        """Move the running statistics toward those of this batch."""
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        rate = self._count_batch()
        self.running_mean.lerp_(mean_C, rate)
        self.running_var.lerp_(variance_C, rate)

    def _count_batch(self) -> float:
        """Count this batch; return the fraction by which its statistics enter the running ones."""
        if not self.track_running_stats:
            return 0.0
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)


def share_batch_norms(model: nn.Module) -> CurrentShard:
    """Replace every batch norm of ``model``, in place, by one over the global batch.

    Frozen norms are of other classes and stay, and so do subclasses, whose ``forward`` is their own.

    Returns:
        The object whose ``shard`` is to be set before each forward.
    """
    current = CurrentShard()
    # A list, since the model is changed while its modules are walked through.
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, SharedBatchNorm(child, current))
    return current
