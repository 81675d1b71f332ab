"""A step of a training that several processes share: the gradients of one process with the same global batch.

Every rank runs the student on its own images. Task losses are partial: a rank holds its summand of the global batch's
loss. The distiller is global: ranks exchange the student's taps, and each computes the distiller for all images. So
whatever looks at several images (statistics of a batch, negatives, queues, prototypes, relations) sees what it would
see in one process, and buffers and measured factors are the same on all ranks without an exchange of their own. In
backward a rank keeps the gradient of its own images, and torch's DistributedDataParallel sums the gradients of the
parameters over the ranks (``collectives.py`` has the rule).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from autokd.detector_outputs import DetectorOutputs, taps_where
from autokd.detectors import Detector
from autokd.tensors import full_precision
from autokd.training.distillation import Distillation, required_taps, task_loss_of, term_parts
from autokd.training.loader import Batch
from autokd.training.optim.update import TASK, TOTAL
from autokd.training.parallel.collectives import Measuring, gather_rows, local_rows, sum_over_ranks
from autokd.training.parallel.shared_norms import share_batch_norms
from autokd.training.seeds import seed_stream
from autokd.training.shards import BatchShard, RankGroup

_DDP_SETTINGS = inspect.signature(DistributedDataParallel.__init__).parameters
_KEEP_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _DDP_SETTINGS else "broadcast_buffers": False
}
"""Setting of DDP that stops it from sending rank 0's buffers before every forward; torch 2.15 renamed it."""

_TENSOR_TAPS = taps_where(form="tensor")


class SharedStep:
    """Computes the losses of one step together with the other ranks; takes the place of ``losses_of``.

    Student and distiller must have the same weights on every rank, and keep them: each rank then takes the same step.

    Note that the student is changed for good: its batch norms are replaced by norms over the global batch, in place,
    since DDP and the optimizer must hold the very parameters that the norms use. Names of parameters and buffers stay,
    so a state dict of the student fits students with plain norms.
    """

    def __init__(
        self, student: Detector, distillation: Distillation | None, ranks: RankGroup, seed: int, device: torch.device
    ) -> None:
        """Wrap student and distiller, which must be on ``device`` already.

        Args:
            student: the detector; its batch norms are replaced.
            distillation: None for a training without a distiller.
            ranks: the processes that share the training.
            seed: the training's seed.
            device: the rank's device.
        """
        self._current = share_batch_norms(student)
        self._student, self._distiller = student, distillation.distiller if distillation else None
        self._ranks, self._seed, self._device = ranks, seed, device
        # find_unused_parameters: which parameters a batch reaches depends on the batch (no boxes, no proposals), and
        # DDP would wait for the gradients of the others for ever.
        # _KEEP_BUFFERS: buffers are equal by construction; DDP would send all of them at every step.
        self._parallel = DistributedDataParallel(
            _StudentAndDistiller(student, distillation), find_unused_parameters=True, **_KEEP_BUFFERS
        )
        self._parallel.register_comm_hook(None, _sum_gradients)
        if self._distiller is not None:
            for parameter in self._distiller.parameters():
                if parameter.requires_grad:
                    # Every rank computes the distiller for all images, so the gradient is complete before DDP sums it.
                    parameter.register_hook(partial(_divided, ranks.count))

    def begin_epoch(self) -> None:
        """Copy rank 0's buffers to all ranks.

        On a GPU sums may differ in their last bits between ranks, and running statistics would slowly drift apart.
        """
        for module in (self._student, self._distiller):
            for buffer in module.buffers() if module is not None else ():
                dist.broadcast(buffer, src=0)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return what ``losses_of`` returns for the global batch: the same values on every rank.

        Args:
            batch: this rank's images, with their shard.
            step: 0-based number of the step in the training, which seeds its random numbers.
        """
        assert batch.shard is not None, "a loader with several ranks gives each batch its shard"
        # The norms are deep inside the student and get no argument: they read the shard from the object that all of
        # them hold.
        self._current.shard = batch.shard
        if self._ranks.rank > 0:
            # Ranks sample for different images (proposals, anchors) and need different numbers; the loop has set
            # those of one process, which rank 0 keeps.
            seed_stream(self._device, self._seed, "step", step, "rank", self._ranks.rank)
        parts: dict[str, Tensor] = self._parallel(batch, lambda: seed_stream(self._device, self._seed, "step", step))
        return parts


class _StudentAndDistiller(nn.Module):
    """The module that DDP wraps: one forward of both, so that DDP sees every parameter used in the step."""

    def __init__(self, student: Detector, distillation: Distillation | None) -> None:
        super().__init__()
        self.student = student
        self.distiller = distillation.distiller if distillation is not None else None
        self._distillation = distillation

    def forward(self, batch: Batch, reseed: Callable[[], None]) -> dict[str, Tensor]:
        """Return every part of the loss by name; ``reseed`` sets the random numbers that all ranks share."""
        shard, distillation = batch.shard, self._distillation
        assert shard is not None
        pyramid = _GlobalPyramid(shard)
        with self.student.counting_positives() as counts, pyramid.of(self.student if distillation else None):
            outputs = self.student(batch.images_BCHW, batch.targets, taps=required_taps(distillation))
        task_loss_of(outputs, self.student)
        assert outputs.losses is not None
        summed = sum_over_ranks(torch.stack(list(outputs.losses.values())) * _weight(counts, shard))
        parts = {f"task/{name}": value for name, value in zip(outputs.losses, summed.unbind(), strict=True)}
        parts[TASK] = parts[TOTAL] = summed.sum()
        if distillation is not None:
            # After the student, which drew different numbers on each rank: the distiller must draw the same ones.
            reseed()
            # The teacher's taps come from the cache by their pairs; the images of other ranks are not here.
            seen = Batch(shard.global_pairs, batch.images_BCHW[:0], batch.global_targets)
            whole = _global_outputs(outputs, pyramid.maps, parts[TASK], shard)
            with pyramid.measuring():
                result = distillation.distiller(whole, distillation.teacher(seen), batch.global_targets)
            parts |= term_parts(result)
            parts[TOTAL] = parts[TASK] + result.total
        return parts


class _GlobalPyramid:
    """Puts the maps of all images between a student's backbone and its heads.

    A distiller measures the gradient of the task loss on the maps. It can do so for all images only if the maps of all
    images are part of the task loss's graph: backbone -> gathered maps -> this rank's maps -> heads -> task loss.
    """

    def __init__(self, shard: BatchShard) -> None:
        self._shard = shard
        self._measuring = Measuring()
        self.maps: tuple[Tensor, ...] = ()

    @contextmanager
    def of(self, student: Detector | None) -> Iterator[None]:
        """Within the block, a forward of ``student`` leaves the maps of all images, fine to coarse, in ``maps``."""
        if student is None:
            yield
            return
        # A hook that returns a value replaces the backbone's output. It lives for one forward: validation, between
        # epochs, must not exchange anything.
        hook = student.model.backbone.register_forward_hook(self._exchange)
        try:
            yield
        finally:
            hook.remove()

    def _exchange(self, backbone: nn.Module, images: Any, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.maps = tuple(gather_rows([full_precision(map_BCHW) for map_BCHW in given.values()], self._shard))
        local = (local_rows(map_GCHW, self._shard, self._measuring) for map_GCHW in self.maps)
        return dict(zip(given, local, strict=True))

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Within the block, gradients on the gathered maps are those of all ranks' losses."""
        self._measuring.is_on = True
        try:
            yield
        finally:
            self._measuring.is_on = False


def _weight(counts: list[Tensor], shard: BatchShard) -> Tensor | float:
    """Return the factor by which this rank's task losses enter those of the global batch.

    Some detectors divide a sum over anchors by the number of positive ones, which is known for this rank's images
    alone: the factor exchanges it for the number of all images. Others take means over images.
    """
    if not counts or not shard.is_split:
        return shard.weight
    [own] = counts
    total = own.detach().clone()
    dist.all_reduce(total)
    # Detectors divide by at least 1, where no anchor is positive; the factor must undo exactly that.
    return own.clamp(min=1) / total.clamp(min=1)


def _global_outputs(
    outputs: DetectorOutputs, maps: Sequence[Tensor], task_loss: Tensor, shard: BatchShard
) -> DetectorOutputs:
    """Return the student's taps of all G images, with the task loss by which relative weights are measured."""
    present = [name for name in _TENSOR_TAPS if getattr(outputs, name) is not None]
    own = [getattr(outputs, name) for name in present]
    for pair in (outputs.head_maps or {}).values():
        own += pair
    whole = iter(gather_rows(own, shard))
    taps: dict[str, Any] = {name: next(whole) for name in present}
    if outputs.head_maps is not None:
        taps["head_maps"] = {level: (next(whole), next(whole)) for level in outputs.head_maps}
    pyramid = dict(zip(outputs.pyramid, maps, strict=True))
    return replace(outputs, pyramid=pyramid, losses={TASK: task_loss}, **taps)


def _divided(count: int, gradient: Tensor) -> Tensor:
    return gradient / count


def _sum_gradients(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Sum gradients over ranks, as a communication hook of DDP.

    DDP's own rule is the mean: it takes each rank's loss for an estimate of the same loss. Here losses are summands.
    """
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future


# ``register_comm_hook`` compares the hook's annotations with these two types. ``from __future__ import annotations``
# keeps them as text, which is never equal: the types are put back.
_sum_gradients.__annotations__ |= {"bucket": dist.GradBucket, "return": torch.futures.Future[Tensor]}
