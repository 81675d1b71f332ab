"""The one training loop: teacher, warm start, proxy and full trainings all go through ``train``.

A step: images of a batch -> one forward of the student gives task losses and taps -> the teacher's taps of the
same views (from the cache, as a rule) -> the distiller's terms -> gradients and a step
(``autokd.training.optim.update``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autokd.config import Recipe
from autokd.detectors import Detector
from autokd.errors import NonFiniteError
from autokd.training.distillation import Distillation, losses_of
from autokd.training.loader import Loader
from autokd.training.optim.averaging import WeightAverage
from autokd.training.optim.optimizer import rate_factor
from autokd.training.optim.update import DISTILL, TASK, TOTAL, make_update_rule
from autokd.training.parallel.data_parallel import SharedStep
from autokd.training.seeds import seed_stream

GPU_CHECK_STEPS = 20
"""On a GPU the losses are looked at this often, since each look waits for the card. On a CPU: at every step."""

GRADIENT = "gradient norm"


@dataclass(frozen=True)
class EpochResult:
    """Means over the steps of ``epoch`` (1-based). ``losses``: every part by name, "total" the sum that fell.

    ``seconds``: since the training began, without the time that the caller took between epochs.
    """

    epoch: int
    num_epochs: int
    losses: Mapping[str, float]
    task_loss: float
    distill_loss: float
    learning_rate: float
    seconds: float


def train(
    student: Detector,
    loader: Loader,
    recipe: Recipe,
    *,
    seed: int,
    distillation: Distillation | None = None,
    stop_after: int | None = None,
    schedule_epochs: int | None = None,
    max_steps: int | None = None,
    frozen: Sequence[nn.Module] = (),
    average: WeightAverage | None = None,
    deadline: float | None = None,
) -> Iterator[EpochResult]:
    """Train ``student`` in place and yield after each epoch; closing the generator stops the training.

    The schedule spans ``schedule_epochs`` (default: the recipe's epochs) and is cut off after ``stop_after``. Where
    ``max_steps`` are fewer, it spans these, and the part of an epoch that remains at the end is an epoch's result.
    ``frozen``: parts of the student that get no gradient and stay in eval mode, so that norm statistics stand still.
    ``average`` takes in the weights after every step.
    Everything random is a function of ``seed``, whatever the distillation draws. ``deadline`` is a value of
    ``time.monotonic``. Raises NonFiniteError naming the part, and TimeoutError.

    Where the loader shares its batches between ranks, every rank calls this, and all end with the same weights.
    """
    device = loader.device
    distiller = distillation.distiller if distillation else None
    shared = None if loader.ranks.is_alone else SharedStep(student, distillation, loader.ranks, seed, device)
    for part in frozen:
        part.requires_grad_(False)
    update_rule = make_update_rule(student, distiller, recipe, device)
    steps_per_epoch = loader.steps_per_epoch(seed)
    num_epochs = schedule_epochs or recipe.epochs
    num_steps, span = num_epochs * steps_per_epoch, float(num_epochs)
    if max_steps is not None and max_steps < num_steps:
        num_steps, span = max_steps, max_steps / steps_per_epoch
        num_epochs = math.ceil(span)
    last_epoch = min(num_epochs, stop_after) if stop_after is not None else num_epochs
    step, seconds = 0, 0.0
    for epoch in range(1, last_epoch + 1):
        began = time.monotonic()
        _set_training(student, distiller, frozen)
        if shared is not None:
            shared.begin_epoch()
        if distiller is not None:
            distiller.begin_epoch(epoch, span, steps_per_epoch)
        record = LossRecord(epoch, check_every=1 if device.type == "cpu" else GPU_CHECK_STEPS)
        for batch in loader.epoch(seed, epoch, num_steps - step):
            rate = recipe.learning_rate * rate_factor(step, num_steps, recipe, steps_per_epoch)
            update_rule.set_rate(rate)
            seed_stream(device, seed, "step", step)
            with update_rule.autocast():
                parts = losses_of(student, batch, distillation) if shared is None else shared.losses(batch, step)
            norm = update_rule.differentiate(parts)
            if norm is not None:
                parts[GRADIENT] = norm
            record.add(parts)
            update_rule.step()
            step += 1
            if average is not None:
                average.update()
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"out of time in epoch {epoch} of {num_epochs}, after {step} steps.")
        seconds += time.monotonic() - began
        yield record.result(num_epochs, rate, seconds)


def _set_training(student: nn.Module, distiller: nn.Module | None, frozen: Sequence[nn.Module]) -> None:
    student.train()
    for part in frozen:
        part.eval()
    if distiller is not None:
        distiller.train()


class LossRecord:
    """The parts of the loss over an epoch: their means, and a look every few steps that all are finite.

    Parts are looked at in the order in which they were named, so the first bad one of the first bad step is the
    one that is blamed. ``total`` and the gradient come last.
    """

    def __init__(self, epoch: int, check_every: int) -> None:
        self._epoch = epoch
        self._check_every = check_every
        self._names: tuple[str, ...] = ()
        self._rows: list[Tensor] = []
        self._sums: Tensor | None = None
        self._num_steps = 0

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Take the parts of one step, the same at every step; NonFiniteError if it is time to look."""
        if not self._names:
            late = (TOTAL, GRADIENT)
            self._names = (*(name for name in parts if name not in late), *(n for n in late if n in parts))
        self._rows.append(torch.stack([parts[name].detach().float() for name in self._names]))
        if len(self._rows) >= self._check_every:
            self._look()

    def _look(self) -> None:
        if not self._rows:
            return
        rows = torch.stack(self._rows).double()
        sums = rows.sum(0)
        if not bool(torch.isfinite(sums).all()):
            self._blame(rows.cpu())
        self._sums = sums if self._sums is None else self._sums + sums
        self._num_steps += len(self._rows)
        self._rows.clear()

    def _blame(self, rows: Tensor) -> None:
        bad_step, bad_part = (int(i) for i in (~torch.isfinite(rows)).nonzero()[0])
        name, value = self._names[bad_part], float(rows[bad_step, bad_part])
        raise NonFiniteError(
            f"{name} is {value} in epoch {self._epoch}, step {self._num_steps + bad_step + 1}. "
            "Lower its weight or the learning rate, or clip the gradient."
        )

    def result(self, num_epochs: int, learning_rate: float, seconds: float) -> EpochResult:
        """The means of the epoch; NonFiniteError if a part of the last steps is not finite."""
        self._look()
        assert self._sums is not None, "an epoch has at least one step"
        means = dict(zip(self._names, (self._sums / self._num_steps).tolist()))
        means.pop(GRADIENT, None)
        return EpochResult(self._epoch, num_epochs, means, means[TASK], means.get(DISTILL, 0.0), learning_rate, seconds)
