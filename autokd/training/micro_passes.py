"""The two runs over the micro-batches of a step, as nodes of the graph: ``micro_batches.py`` says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autokd.detector_outputs import DetectorOutputs, taps_where
from autokd.detectors import Detector
from autokd.training.distillation import task_loss_of
from autokd.training.loader import Batch
from autokd.training.optim.update import TASK
from autokd.training.seeds import random_stream

_TENSOR_TAPS = taps_where(form="tensor")

Autocast = Callable[[], AbstractContextManager[object]]


class MicroRunner:
    """Runs a student on one micro-batch, equally at each call."""

    def __init__(
        self, student: Detector, taps: tuple[str, ...], seed: int, device: torch.device, autocast: Autocast
    ) -> None:
        """Run nothing yet.

        Args:
            student: the detector.
            taps: names of the taps to return.
            seed: the training's seed.
            device: device of the training.
            autocast: returns the context of the step's precision.
        """
        self._student, self._taps = student, taps
        self._seed, self._device, self._autocast = seed, device, autocast

    def run(self, batch: Batch, step: int, number: int) -> DetectorOutputs:
        """Return the outputs of a micro-batch.

        Args:
            batch: its images.
            step: number of the step in the training, which seeds its random numbers.
            number: number of the micro-batch in its batch.
        """
        names = ("step", step, "micro", number) if number else ("step", step)
        with random_stream(self._device, self._seed, *names), self._autocast():
            return self._student(batch.images_BCHW, batch.targets, taps=self._taps)

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


class Passes:
    """The two runs over the micro-batches of one step."""

    def __init__(self, runner: MicroRunner, micro_batches: Sequence[Batch], number: int) -> None:
        self._runner, self._micro_batches, self._number = runner, micro_batches, number
        self._weights: list[Tensor | float] = []
        self._first: list[DetectorOutputs] = []
        self._is_measuring = False
        self.losses: dict[str, Tensor] = {}
        self.kept: list[Tensor | None] | None = None
        """Gradients of the task loss with regard to the parameters, if they were kept."""

    def first(self, parameters: Sequence[Tensor], *, keeps_gradients: bool) -> None:
        """Run every micro-batch once: task losses, taps, and the numbers that divide the losses.

        Args:
            parameters: leaves of the gradients.
            keeps_gradients: whether those of the task loss are computed at once.
        """
        counts: list[Tensor] = []
        sums: list[Tensor | None] = [None] * len(parameters)
        for number, batch in enumerate(self._micro_batches):
            with self._runner.counting() as own, torch.set_grad_enabled(keeps_gradients):
                outputs = self._runner.run(batch, self._number, number)
                loss = self._runner.task_loss(outputs)
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
        loss, *others = HeadsNode.apply(self, num_levels, *taps)
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
            maps = [level for level in tensors[:levels] if level.requires_grad]
            parts: Sequence[Tensor | None] = [None] * len(maps)
            if reached[0] and maps:
                parts = torch.autograd.grad(reached[0], maps, reached[1], allow_unused=True)
            known = {id(level): part for level, part in zip(maps, parts, strict=True) if part is not None}
            found.append([known.get(id(level), torch.zeros_like(level)) for level in tensors[:levels]])
        return [torch.cat(level) for level in zip(*found, strict=True)]

    def _again(self) -> Iterator[tuple[DetectorOutputs, Tensor, slice]]:
        """Run every micro-batch again with a graph; yield outputs, the loss with its weight, and the rows."""
        first = 0
        with self._runner.kept_statistics():
            for number, batch in enumerate(self._micro_batches):
                with torch.enable_grad():
                    outputs = self._runner.run(batch, self._number, number)
                    loss = self._runner.task_loss(outputs) * self._weights[number]
                yield outputs, loss, slice(first, first + batch.num_images)
                first += batch.num_images

    def second(
        self, parameters: Sequence[Tensor], task_gradient: Tensor | None, tap_gradients: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Run every micro-batch again, and return the gradients of the parameters.

        Args:
            parameters: leaves of the gradients.
            task_gradient: gradient on the task loss.
            tap_gradients: gradients on the taps of all images, in the order of ``taps``.
        """
        if self.kept is not None:
            assert task_gradient is not None, "without a distiller there is nothing but the task loss"
            return [None if each is None else each * task_gradient for each in self.kept]
        sums: list[Tensor | None] = [None] * len(parameters)
        for outputs, loss, rows in self._again():
            reached = _reached([loss, *_tensors(outputs)], [task_gradient, *_rows(tap_gradients, rows)])
            sums = _added(sums, torch.autograd.grad(reached[0], parameters, reached[1], allow_unused=True))
        return sums


class StudentNode(torch.autograd.Function):
    """The student over all micro-batches: parameters -> task loss and taps."""

    @staticmethod
    def forward(ctx: Any, passes: Passes, parameters: Sequence[Tensor], *leaves: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.passes, ctx.parameters = passes, parameters
        taps = passes.taps() if passes.kept is None else []
        ctx.mark_non_differentiable(*(tap for tap in taps if not tap.is_floating_point()))
        return (torch.stack(list(passes.losses.values())).sum(), *taps)

    @staticmethod
    def backward(ctx: Any, task_gradient: Tensor | None, *tap_gradients: Tensor | None) -> tuple[Any, ...]:
        return (None, None, *ctx.passes.second(ctx.parameters, task_gradient, tap_gradients))


class HeadsNode(torch.autograd.Function):
    """The student's heads over all micro-batches: taps -> task loss, and the taps behind the pyramid as they are.

    A distiller measures gradients on the pyramid, of the task loss and of terms that read predictions. While it does,
    this node carries them through the heads. In the step's own backward pass it hands gradients on to the student's
    node, which knows the way through the heads itself.
    """

    @staticmethod
    def forward(ctx: Any, passes: Passes, num_levels: int, *taps: Tensor) -> tuple[Tensor, ...]:
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
