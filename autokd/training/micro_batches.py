"""A step whose images go through the student a few at a time, with the gradients of the whole batch.

The student's forward over a batch becomes one node of the graph. Its forward runs the micro-batches without keeping
their activations, and returns the task loss and the taps of all images: the distiller sees the whole batch, as it would
without micro-batches, so that negatives, queues, prototypes, relations and measured weights are the same. Its backward
runs each micro-batch again and differentiates it with the gradients that arrived. That costs one forward more; a
training without distillation keeps the gradients of the first run instead.

What is not the same: batch norms that are trained normalize each micro-batch by its own statistics, and FasterRCNN
draws other anchors and proposals. Group norms and frozen norms look at one image.

Legend: B images of the batch, M images of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from autokd.config import Recipe
from autokd.detector_outputs import DetectorOutputs, taps_where
from autokd.detectors import Detector
from autokd.training.distillation import Distillation, losses_of, required_taps, task_loss_of, term_parts
from autokd.training.loader import Batch
from autokd.training.optim.optimizer import trainable
from autokd.training.optim.update import TASK, TOTAL, UpdateRule
from autokd.training.seeds import random_stream, seed_stream

_TENSOR_TAPS = taps_where(form="tensor")
_USABLE_SHARE = 0.8
"""Share of a GPU's free memory that micro-batches are fitted to: sizes of batches and boxes vary."""

Autocast = Callable[[], AbstractContextManager[object]]


class MicroBatchedStep:
    """Computes the losses of one step."""

    def __init__(
        self,
        student: Detector,
        distillation: Distillation | None,
        size: int,
        seed: int,
        device: torch.device,
        autocast: Autocast,
        keeps_gradients: bool = True,
    ) -> None:
        """Run nothing yet.

        Args:
            student: the detector.
            distillation: None for a training without a distiller.
            size: M.
            seed: the training's seed.
            device: device of the training.
            autocast: returns the context of the step's precision.
            keeps_gradients: whether gradients of a training without a distiller are taken in the first run, before a
                loss could be scaled.
        """
        self._student, self._distillation, self._size = student, distillation, size
        self._seed, self._device, self._autocast = seed, device, autocast
        self._keeps_gradients = keeps_gradients and distillation is None

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return what ``losses_of`` returns for the whole batch.

        Args:
            batch: the B images.
            step: 0-based number of the step in the training, which seeds its random numbers.
        """
        micro_batches = [_cut(batch, first, self._size) for first in range(0, batch.num_images, self._size)]
        passes = _Passes(self, micro_batches, step)
        parameters = trainable(self._student)
        passes.first(parameters, keeps_gradients=self._keeps_gradients)
        task_loss, *taps = _StudentNode.apply(passes, parameters, *parameters)
        parts = {f"task/{name}": value for name, value in passes.losses.items()}
        parts[TASK] = parts[TOTAL] = task_loss
        if self._distillation is None:
            return parts
        # As the whole batch would leave it, unless the student draws.
        seed_stream(self._device, self._seed, "step", step)
        outputs = passes.whole(taps)
        with passes.measuring():
            result = self._distillation.distiller(outputs, self._distillation.teacher(batch), batch.targets)
        parts |= term_parts(result)
        parts[TOTAL] = task_loss + result.total
        return parts

    def run(self, batch: Batch, step: int, number: int) -> DetectorOutputs:
        """Run the student on a micro-batch; equal at each call."""
        names = ("step", step, "micro", number) if number else ("step", step)
        with random_stream(self._device, self._seed, *names), self._autocast():
            return self._student(batch.images_BCHW, batch.targets, taps=required_taps(self._distillation))

    @contextmanager
    def counting(self) -> Iterator[list[Tensor]]:
        """Yield the list to which forwards append the numbers by which the student divides its losses."""
        with self._student.counting_positives() as counts:
            yield counts

    @contextmanager
    def kept_statistics(self) -> Iterator[None]:
        """Within the block, norms leave their running statistics as they are at its end."""
        kept = [(buffer, buffer.clone()) for buffer in self._student.buffers()]
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in kept:
                    buffer.copy_(value)

    def task_loss(self, outputs: DetectorOutputs) -> Tensor:
        """Return a micro-batch's task loss."""
        return task_loss_of(outputs, self._student)


class _Passes:
    """The two runs over the micro-batches of one step."""

    def __init__(self, step: MicroBatchedStep, micro_batches: Sequence[Batch], number: int) -> None:
        self._step, self._micro_batches, self._number = step, micro_batches, number
        self._weights: list[Tensor | float] = []
        self._first: list[DetectorOutputs] = []
        self._is_measuring = False
        self.losses: dict[str, Tensor] = {}
        self.kept: list[Tensor | None] | None = None
        """Gradients of the task loss with regard to the parameters, if they were kept."""

    def first(self, parameters: Sequence[Tensor], *, keeps_gradients: bool) -> None:
        """Run every micro-batch once: task losses, taps, and the numbers that divide the losses."""
        counts: list[Tensor] = []
        sums: list[Tensor | None] = [None] * len(parameters)
        for number, batch in enumerate(self._micro_batches):
            with self._step.counting() as own, torch.set_grad_enabled(keeps_gradients):
                outputs = self._step.run(batch, self._number, number)
                loss = self._step.task_loss(outputs)
            counts += own
            if keeps_gradients:
                scale = own[0].clamp(min=1) if own else batch.num_images
                sums = _added(sums, torch.autograd.grad(loss * scale, parameters, allow_unused=True))
            self._first.append(_detached(outputs))
        self._weights = self._shares(counts)
        if keeps_gradients:
            total = torch.stack(counts).sum().clamp(min=1) if counts else sum(b.num_images for b in self._micro_batches)
            self.kept = [None if each is None else each / total for each in sums]
        for outputs, weight in zip(self._first, self._weights, strict=True):
            assert outputs.losses is not None
            for name, value in outputs.losses.items():
                self.losses[name] = self.losses.get(name, value.new_zeros(())) + value * weight

    def _shares(self, counts: Sequence[Tensor]) -> list[Tensor | float]:
        """Return the factor by which each micro-batch's losses enter those of the batch.

        Some detectors divide a sum over anchors by the number of positive ones, at least 1; others take means over
        images.
        """
        if len(counts) == len(self._micro_batches):
            total = torch.stack(list(counts)).sum().clamp(min=1).double()
            losses = next(iter((self._first[0].losses or {}).values()))
            return [(own.clamp(min=1) / total).to(losses.dtype) for own in counts]
        total_images = sum(batch.num_images for batch in self._micro_batches)
        return [batch.num_images / total_images for batch in self._micro_batches]

    def taps(self) -> list[Tensor]:
        """Return the tensors of the taps of all images, in the order of ``whole``."""
        return [torch.cat(parts) for parts in zip(*map(_tensors, self._first), strict=True)]

    def whole(self, taps: Sequence[Tensor]) -> DetectorOutputs:
        """Return the student's outputs of all images, whose losses and other taps depend on the pyramid.

        Args:
            taps: the taps as the student's node returns them.
        """
        num_levels = len(self._first[0].pyramid)
        loss, *others = _HeadsNode.apply(self, num_levels, *taps)
        found = _with_tensors(self._first[0], [*taps[:num_levels], *others])
        return replace(found, losses={TASK: loss})

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Within the block, the heads' node differentiates with regard to the pyramid; afterwards it hands on."""
        self._is_measuring = True
        try:
            yield
        finally:
            self._is_measuring = False

    @property
    def is_measuring(self) -> bool:
        """Whether a distiller is at work, which may measure gradients on the pyramid."""
        return self._is_measuring

    def on_pyramid(self, loss_gradient: Tensor | None, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the gradients on the pyramid of all images, through the heads.

        Args:
            loss_gradient: gradient on the task loss.
            gradients: gradients on the other taps.
        """
        found: list[list[Tensor]] = []
        levels = len(self._first[0].pyramid)
        for outputs, loss, rows in self._again():
            tensors = _tensors(outputs)
            reached = _reached([loss, *tensors[levels:]], [loss_gradient, *_rows(gradients, rows)])
            maps = tensors[:levels]
            parts = (
                torch.autograd.grad(reached[0], maps, reached[1], allow_unused=True) if reached[0] else [None] * levels
            )
            found.append([torch.zeros_like(m) if g is None else g for m, g in zip(maps, parts, strict=True)])
        return [torch.cat(level) for level in zip(*found, strict=True)]

    def _again(self) -> Iterator[tuple[DetectorOutputs, Tensor, slice]]:
        """Run every micro-batch again with a graph; yield outputs, the loss with its weight, and the rows."""
        first = 0
        with self._step.kept_statistics():
            for number, batch in enumerate(self._micro_batches):
                with torch.enable_grad():
                    outputs = self._step.run(batch, self._number, number)
                    loss = self._step.task_loss(outputs) * self._weights[number]
                yield outputs, loss, slice(first, first + batch.num_images)
                first += batch.num_images

    def second(
        self, parameters: Sequence[Tensor], task_gradient: Tensor | None, tap_gradients: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Run every micro-batch again, and return the gradients of the parameters."""
        if self.kept is not None:
            assert task_gradient is not None, "without a distiller there is nothing but the task loss"
            return [None if each is None else each * task_gradient for each in self.kept]
        sums: list[Tensor | None] = [None] * len(parameters)
        for outputs, loss, rows in self._again():
            reached = _reached([loss, *_tensors(outputs)], [task_gradient, *_rows(tap_gradients, rows)])
            sums = _added(sums, torch.autograd.grad(reached[0], parameters, reached[1], allow_unused=True))
        return sums


class _StudentNode(torch.autograd.Function):
    """The student over all micro-batches: parameters -> task loss and taps."""

    @staticmethod
    def forward(ctx: Any, passes: _Passes, parameters: Sequence[Tensor], *leaves: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.passes, ctx.parameters = passes, parameters
        taps = passes.taps() if passes.kept is None else []
        ctx.mark_non_differentiable(*(tap for tap in taps if not tap.is_floating_point()))
        return (torch.stack(list(passes.losses.values())).sum(), *taps)

    @staticmethod
    def backward(ctx: Any, task_gradient: Tensor | None, *tap_gradients: Tensor | None) -> tuple[Any, ...]:
        return (None, None, *ctx.passes.second(ctx.parameters, task_gradient, tap_gradients))


class _HeadsNode(torch.autograd.Function):
    """The student's heads over all micro-batches: taps -> task loss, and the taps behind the pyramid as they are.

    A distiller measures gradients on the pyramid, of the task loss and of terms that read predictions. While it does,
    this node carries them through the heads. In the step's own backward pass it hands gradients on to the student's
    node, which knows the way through the heads itself.
    """

    @staticmethod
    def forward(ctx: Any, passes: _Passes, num_levels: int, *taps: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.passes, ctx.num_levels, ctx.num_taps = passes, num_levels, len(taps)
        others = tuple(tap.view_as(tap) for tap in taps[num_levels:])
        return (torch.stack(list(passes.losses.values())).sum(), *others)

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor | None, *gradients: Tensor | None) -> tuple[Any, ...]:
        if ctx.passes.is_measuring:
            others: list[None] = [None] * (ctx.num_taps - ctx.num_levels)
            return (None, None, *ctx.passes.on_pyramid(loss_gradient, gradients), *others)
        levels: list[None] = [None] * ctx.num_levels
        return (None, None, *levels, *gradients)


def _rows(gradients: Sequence[Tensor | None], rows: slice) -> list[Tensor | None]:
    return [None if gradient is None else gradient[rows] for gradient in gradients]


def _reached(values: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the values that have a graph and a gradient, and their gradients in the same number format."""
    pairs = [
        (value, gradient.to(value.dtype))
        for value, gradient in zip(values, gradients, strict=True)
        if gradient is not None and value.requires_grad
    ]
    return [value for value, _ in pairs], [gradient for _, gradient in pairs]


def _cut(batch: Batch, first: int, size: int) -> Batch:
    rows = slice(first, first + size)
    return replace(batch, pairs=batch.pairs[rows], images_BCHW=batch.images_BCHW[rows], targets=batch.targets[rows])


def _tensors(outputs: DetectorOutputs) -> list[Tensor]:
    found = list(outputs.pyramid.values())
    found += [tap for name in _TENSOR_TAPS if (tap := getattr(outputs, name)) is not None]
    return found + [tap for pair in (outputs.head_maps or {}).values() for tap in pair]


def _with_tensors(outputs: DetectorOutputs, tensors: Sequence[Tensor]) -> DetectorOutputs:
    waiting = iter(tensors)
    pyramid = {level: next(waiting) for level in outputs.pyramid}
    taps: dict[str, Any] = {name: next(waiting) for name in _TENSOR_TAPS if getattr(outputs, name) is not None}
    if outputs.head_maps is not None:
        taps["head_maps"] = {level: (next(waiting), next(waiting)) for level in outputs.head_maps}
    return replace(outputs, pyramid=pyramid, **taps)


def _detached(outputs: DetectorOutputs) -> DetectorOutputs:
    losses: Mapping[str, Tensor] = outputs.losses or {}
    found = _with_tensors(outputs, [tensor.detach() for tensor in _tensors(outputs)])
    return replace(found, losses={name: value.detach() for name, value in losses.items()})


def _added(sums: Sequence[Tensor | None], more: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [b if a is None else a if b is None else a + b for a, b in zip(sums, more, strict=True)]


class MicroBatches:
    """Computes the losses of each step of a training by micro-batches of the recipe's size."""

    def __init__(
        self, student: Detector, distillation: Distillation | None, recipe: Recipe, seed: int, update_rule: UpdateRule
    ) -> None:
        """Choose no size yet.

        Args:
            student: the detector.
            distillation: None for a training without a distiller.
            recipe: recipe with a ``micro_batch_size``; "auto": the memory is measured at the first step.
            seed: the training's seed.
            update_rule: the training's precision.
        """
        self._student, self._distillation, self._seed = student, distillation, seed
        self._size, self._update_rule = recipe.micro_batch_size, update_rule

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return what ``losses_of`` returns for the whole batch.

        Args:
            batch: images of the step.
            step: 0-based number of the step in the training.
        """
        autocast = self._update_rule.autocast
        if self._size == "auto":
            self._size = fitting_size(self._student, batch, autocast)
        assert isinstance(self._size, int), "the recipe has a size"
        if batch.num_images <= self._size:
            return losses_of(self._student, batch, self._distillation)
        keeps = not self._update_rule.precision.is_scaled
        device = batch.images_BCHW.device
        one = MicroBatchedStep(self._student, self._distillation, self._size, self._seed, device, autocast, keeps)
        return one.losses(batch, step)


@dataclass(frozen=True)
class MemoryUse:
    """Greatest memory of a forward and backward pass over one image and over two, in bytes."""

    of_one: int
    of_two: int

    def fitting(self, free_bytes: int, batch_size: int) -> int:
        """Return the number of images that fit, from 1 to the whole batch.

        Args:
            free_bytes: memory that a step may take, the student's own included.
            batch_size: images of a step.
        """
        each = max(self.of_two - self.of_one, 1)
        fixed = self.of_one - each
        return max(1, min(batch_size, int((_USABLE_SHARE * free_bytes - fixed) // each)))


def fitting_size(student: Detector, batch: Batch, autocast: Autocast) -> int:
    """Return the number of images whose activations the GPU has memory for; on a CPU all of the batch.

    Args:
        student: the detector, in training mode; it is left as it is.
        batch: a batch of the training.
        autocast: returns the context of the step's precision.
    """
    device = batch.images_BCHW.device
    if device.type != "cuda" or batch.num_images < 2:
        return batch.num_images
    step = MicroBatchedStep(student, None, 1, 0, device, autocast)
    peaks = []
    for count in (1, 2):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        with step.kept_statistics(), torch.enable_grad():
            loss = step.task_loss(step.run(_cut(batch, 0, count), 0, 0))
            torch.autograd.grad(loss, trainable(student), allow_unused=True)
        peaks.append(torch.cuda.max_memory_allocated(device))
    free, _ = torch.cuda.mem_get_info(device)
    return MemoryUse(*peaks).fitting(free + torch.cuda.memory_reserved(device), batch.num_images)
