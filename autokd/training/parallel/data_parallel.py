"""A step of a training that several processes share: the gradients of one process with the same global batch.

Every rank runs the student on its own images. Task losses are shared out: each rank holds its summand of the global
batch's loss. The distiller is computed whole on every rank: ranks exchange the student's taps, so that whatever looks
at several images (statistics of a batch, negatives, queues, prototypes, relations) sees what it would see in one
process, and buffers and measured factors are the same everywhere without an exchange of their own. Of its gradient
each rank keeps its own images' part. Torch's DistributedDataParallel then sums the gradients while they are computed.
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

from autokd.detectors import Detector
from autokd.detectors.contract import full_precision
from autokd.outputs import DetectorOutputs, taps_where
from autokd.training.lesson import Lesson, task_loss_of, term_parts, wanted_taps
from autokd.training.loader import Batch
from autokd.training.optim.update import TASK, TOTAL
from autokd.training.parallel.collectives import Measuring, own_rows, sum_of_shares, whole_rows
from autokd.training.parallel.shared_norms import share_batch_norms
from autokd.training.parallel.shares import Ranks, Share
from autokd.training.seeds import seed_stream

_DDP_SETTINGS = inspect.signature(DistributedDataParallel.__init__).parameters
_KEEP_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _DDP_SETTINGS else "broadcast_buffers": False
}
"""Do not send rank 0's buffers before every forward; torch 2.15 has renamed it."""

_TENSOR_TAPS = taps_where(form="tensor")


class SharedStep:
    """Stands for ``losses_of`` on each rank; student and distiller are the same on all of them at every step."""

    def __init__(self, student: Detector, lesson: Lesson | None, ranks: Ranks, seed: int, device: torch.device) -> None:
        """Student and distiller must be on their device; the student's batch norms are replaced by shared ones."""
        self._current = share_batch_norms(student)
        self._student, self._distiller = student, lesson.distiller if lesson else None
        self._ranks, self._seed, self._device = ranks, seed, device
        # Which parameters a batch reaches may depend on it (no boxes, no proposals). Buffers are the same by
        # construction; DDP would send all of them at every step.
        self._parallel = DistributedDataParallel(
            _StudentAndDistiller(student, lesson), find_unused_parameters=True, **_KEEP_BUFFERS
        )
        self._parallel.register_comm_hook(None, _sum_gradients)
        if self._distiller is not None:
            for parameter in self._distiller.parameters():
                if parameter.requires_grad:  # its gradient is whole on every rank, and will be summed
                    parameter.register_hook(partial(_part_of, ranks.count))

    def begin_epoch(self) -> None:
        """Buffers as on rank 0: on a GPU sums may differ in their last bits from one rank to another."""
        for module in (self._student, self._distiller):
            for buffer in module.buffers() if module is not None else ():
                dist.broadcast(buffer, src=0)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """As ``losses_of`` gives them for the global batch, the same values on every rank."""
        assert batch.share is not None, "a loader that knows its ranks says what is shared"
        self._current.share = batch.share
        if self._ranks.rank > 0:  # what a student samples differs between ranks
            seed_stream(self._device, self._seed, "step", step, "rank", self._ranks.rank)
        parts: dict[str, Tensor] = self._parallel(batch, lambda: seed_stream(self._device, self._seed, "step", step))
        return parts


class _StudentAndDistiller(nn.Module):
    """What DDP wraps. The distiller draws the same numbers on every rank, those of one process."""

    def __init__(self, student: Detector, lesson: Lesson | None) -> None:
        super().__init__()
        self.student = student
        self.distiller = lesson.distiller if lesson is not None else None
        self._lesson = lesson

    def forward(self, batch: Batch, reseed: Callable[[], None]) -> dict[str, Tensor]:
        share, lesson = batch.share, self._lesson
        assert share is not None
        pyramid = _WholePyramid(share)
        with self.student.counting_positives() as counts, pyramid.of(self.student if lesson else None):
            outputs = self.student(batch.images_BCHW, batch.targets, taps=wanted_taps(lesson))
        task_loss_of(outputs, self.student)
        assert outputs.losses is not None
        summed = sum_of_shares(torch.stack(list(outputs.losses.values())) * _weight(counts, share))
        parts = {f"task/{name}": value for name, value in zip(outputs.losses, summed.unbind(), strict=True)}
        parts[TASK] = parts[TOTAL] = summed.sum()
        if lesson is not None:
            reseed()
            seen = Batch(share.whole, batch.images_BCHW[:0], batch.whole_targets)
            whole = _whole_outputs(outputs, pyramid.maps, parts[TASK], share)
            with pyramid.measuring():
                result = lesson.distiller(whole, lesson.teacher(seen), batch.whole_targets)
            parts |= term_parts(result)
            parts[TOTAL] = parts[TASK] + result.total
        return parts


class _WholePyramid:
    """Puts the maps of all images between a student's backbone and its heads: gradients can be measured on them."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._measuring = Measuring()
        self.maps: tuple[Tensor, ...] = ()

    @contextmanager
    def of(self, student: Detector | None) -> Iterator[None]:
        """Within, a forward of ``student`` leaves the whole maps, fine to coarse, in ``maps``."""
        if student is None:
            yield
            return
        hook = student.model.backbone.register_forward_hook(self._exchange)
        try:
            yield
        finally:
            hook.remove()

    def _exchange(self, backbone: nn.Module, images: Any, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.maps = tuple(whole_rows([full_precision(map_BCHW) for map_BCHW in given.values()], self._share))
        own = (own_rows(map_GCHW, self._share, self._measuring) for map_GCHW in self.maps)
        return dict(zip(given, own, strict=True))

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Within, gradients on the whole maps are whole."""
        self._measuring.is_on = True
        try:
            yield
        finally:
            self._measuring.is_on = False


def _weight(counts: list[Tensor], share: Share) -> Tensor | float:
    """What this rank's task losses add to those of the global batch.

    Sums that were divided by the positives of this rank's images are to be divided by those of all.
    """
    if not counts or not share.is_split:
        return share.weight
    [own] = counts
    total = own.detach().clone()
    dist.all_reduce(total)
    return own.clamp(min=1) / total.clamp(min=1)


def _whole_outputs(
    outputs: DetectorOutputs, maps: Sequence[Tensor], task_loss: Tensor, share: Share
) -> DetectorOutputs:
    """The student's taps for all images of the global batch, with the task loss to measure weights by."""
    present = [name for name in _TENSOR_TAPS if getattr(outputs, name) is not None]
    own = [getattr(outputs, name) for name in present]
    for pair in (outputs.head_maps or {}).values():
        own += pair
    whole = iter(whole_rows(own, share))
    taps: dict[str, Any] = {name: next(whole) for name in present}
    if outputs.head_maps is not None:
        taps["head_maps"] = {level: (next(whole), next(whole)) for level in outputs.head_maps}
    pyramid = dict(zip(outputs.pyramid, maps, strict=True))
    return replace(outputs, pyramid=pyramid, losses={TASK: task_loss}, **taps)


def _part_of(count: int, gradient: Tensor) -> Tensor:
    return gradient / count


def _sum_gradients(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's hook: ranks hold summands, where DDP's own rule would take their mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future


# DDP compares the annotations themselves, which ``from __future__ import annotations`` keeps as text.
_sum_gradients.__annotations__ |= {"bucket": dist.GradBucket, "return": torch.futures.Future[Tensor]}
