"""The one training loop: teacher, warm start, proxy and full trainings all go through ``train``.

A step: images of a batch -> one forward of the student gives task losses and taps -> the teacher's taps of the same
views (from the cache, as a rule) -> the distiller's terms -> gradients and an update (``optim.update``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autokd.config import Recipe
from autokd.detectors import Detector
from autokd.errors import NonFiniteError
from autokd.training.checkpoint.checkpoints import NO_CHECKPOINTS, Checkpoints
from autokd.training.checkpoint.state import TrainingState, on_cpu
from autokd.training.distillation import Distillation, add_unlabeled, losses_of
from autokd.training.loader import Loader
from autokd.training.micro_batches import MicroBatches
from autokd.training.optim.averaging import WeightAverage
from autokd.training.optim.optimizer import rate_factor
from autokd.training.optim.update import DISTILL, TASK, TOTAL, make_update_rule
from autokd.training.parallel.data_parallel import SharedStep
from autokd.training.seeds import seed_stream

GPU_CHECK_STEPS = 20
"""Steps between two checks that losses are finite on a GPU, since each check waits for the card; on a CPU: 1."""

GRADIENT = "gradient norm"


@dataclass(frozen=True)
class EpochResult:
    """Means over the steps of an epoch.

    Attributes:
        epoch: 1-based number of the epoch.
        num_epochs: epochs of the whole schedule.
        losses: every part of the loss by name; "total" is the sum that was minimized.
        task_loss: the detector's own loss.
        distill_loss: the distiller's loss; 0 without a distiller.
        learning_rate: that of the last step.
        seconds: time since the training began, without the time that the caller took between epochs.
    """

    epoch: int
    num_epochs: int
    losses: Mapping[str, float]
    task_loss: float
    distill_loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Schedule:
    """Length of a training and of its learning-rate schedule, where they differ from the recipe's.

    Attributes:
        num_epochs: epochs over which the schedule spans; None: the recipe's.
        stop_after: number of the epoch after which the training is cut off; None: the schedule's last.
        max_steps: maximum steps of the schedule, which is fitted to them if its epochs have more. The part of an epoch
            that remains at the end is reported as an epoch.
        stop_after_steps: number of steps after which the training is cut off, whatever the schedule; None: no limit.
    """

    num_epochs: int | None = None
    stop_after: int | None = None
    max_steps: int | None = None
    stop_after_steps: int | None = None

    def resolve(self, recipe: Recipe, steps_per_epoch: int) -> ResolvedSchedule:
        """Return the schedule in steps, for a recipe and a number of batches."""
        num_epochs = self.num_epochs or recipe.epochs
        num_steps, span_epochs = num_epochs * steps_per_epoch, float(num_epochs)
        if self.max_steps is not None and self.max_steps < num_steps:
            num_steps, span_epochs = self.max_steps, self.max_steps / steps_per_epoch
            num_epochs = math.ceil(span_epochs)
        last_epoch = num_epochs if self.stop_after is None else min(num_epochs, self.stop_after)
        last_step = num_steps
        if self.stop_after_steps is not None and self.stop_after_steps < num_steps:
            last_step = self.stop_after_steps
            last_epoch = min(last_epoch, math.ceil(last_step / steps_per_epoch))
        return ResolvedSchedule(num_steps, span_epochs, num_epochs, last_epoch, last_step)


@dataclass(frozen=True)
class ResolvedSchedule:
    """Steps and epochs of a schedule. ``span_epochs``: its length in epochs, which need not be a whole number;
    ``last_step``: number of the step after which the training ends, if its last epoch does not end before."""

    num_steps: int
    span_epochs: float
    num_epochs: int
    last_epoch: int
    last_step: int


@dataclass(frozen=True, eq=False)
class StudentExtras:
    """Measures of cheaper proxies that touch the student while it is trained.

    Attributes:
        frozen: parts that get no gradient and stay in eval mode, so that their norm statistics keep their values too.
        average: a moving average that takes in the weights after every step.
    """

    frozen: tuple[nn.Module, ...] = ()
    average: WeightAverage | None = None


def train(
    student: Detector,
    loader: Loader,
    recipe: Recipe,
    *,
    seed: int,
    distillation: Distillation | None = None,
    schedule: Schedule = Schedule(),
    extras: StudentExtras = StudentExtras(),
    deadline: float | None = None,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Generator[EpochResult, None, None]:
    """Train a student in place, and yield after each epoch.

    If the loader's batches are shared between ranks, every rank calls this, and all end with the same weights.

    Args:
        student: the detector, on the loader's device.
        loader: training images and their views.
        recipe: optimizer, learning rate, precision, ...
        seed: everything random depends on it alone, whatever the distiller draws.
        distillation: distiller and teacher; None trains by the task losses alone.
        schedule: where the training's length differs from the recipe's.
        extras: frozen parts, and an average of the weights.
        deadline: a value of ``time.monotonic`` in seconds; None: no limit.
        checkpoints: where the training's state is saved on the way, and from which state it goes on. A training that
            goes on is equal to one that was not interrupted, on a CPU bit for bit; epochs that were done are not
            yielded again.

    Yields:
        The means of each epoch. Closing the generator stops the training.

    Raises:
        JobPreempted: if the process was asked to end (SIGTERM), after the state was saved.
        CheckpointError: if the checkpoint is that of another student or distiller.
        NonFiniteError: if a loss or the gradient is not finite; the message names the part of the loss.
        TimeoutError: if the deadline has passed.
    """
    # Why trainings are generators. Whoever trains has something of its own to do after each epoch: a proxy is measured,
    # a report goes to the search, the pruner may stop the job, a progress bar moves. With a generator each does it in
    # its own loop, with the student at hand and in plain order, where callbacks would turn the control around. A
    # training that is not advanced does nothing, so measuring between epochs is never concurrent with a step, and is
    # not counted in ``seconds``. To stop is to close: ``GeneratorExit`` is raised at the ``yield``, every ``with`` and
    # ``finally`` on the way is left (hooks, loader threads), and no flag has to be passed down. The evaluator, the
    # guard around it and the runtimes hand the same generator through (``yield`` in ``TrainingEvaluator.evaluate`` and
    # ``run_guarded``), so that a worker holds one job as one object that it can advance and close.
    device = loader.device
    distiller = distillation.distiller if distillation else None
    # Before the optimizer is made: norms are replaced by norms over all ranks.
    shared = None if loader.ranks.is_alone else SharedStep(student, distillation, loader.ranks, seed, device)
    for part in extras.frozen:
        part.requires_grad_(False)  # before the optimizer too, which gets trainable parameters alone
    update_rule = make_update_rule(student, distiller, recipe, device)
    micro = None if recipe.micro_batch_size is None else MicroBatches(student, distillation, recipe, seed, update_rule)
    steps_per_epoch = loader.steps_per_epoch(seed)
    plan = schedule.resolve(recipe, steps_per_epoch)
    state = TrainingState(student, distiller, update_rule, extras.average, device)
    check_every = 1 if device.type == "cpu" else GPU_CHECK_STEPS
    record, losses_so_far = LossRecord(1, check_every), dict[str, Any]()
    if (saved := checkpoints.saved) is not None:
        state.restore(saved)
        losses_so_far = saved["losses"] or {}
        checkpoints.forget_saved()
    at = state.position

    def snapshot() -> dict[str, Any]:
        return state.snapshot() | {"losses": on_cpu(record.get_state()) if at.steps_in_epoch else None}

    with checkpoints.running(state.num_bytes):
        while at.epoch <= plan.last_epoch:
            began, seconds = time.monotonic(), at.seconds
            _set_training_mode(student, distiller, extras)
            record = LossRecord(at.epoch, check_every)
            if at.steps_in_epoch:
                record.set_state(losses_so_far)
            else:
                if shared is not None:
                    shared.begin_epoch()
                if distiller is not None:
                    distiller.begin_epoch(at.epoch, plan.span_epochs, steps_per_epoch)
            num_left = plan.last_step - (at.step - at.steps_in_epoch)
            for batch in loader.epoch(seed, at.epoch, num_left, first=at.steps_in_epoch):
                update_rule.set_rate(_rate(at.step, plan, recipe, steps_per_epoch))
                # Every step has its own stream: what a distiller draws in one step cannot shift the student's next.
                seed_stream(device, seed, "step", at.step)
                with update_rule.autocast():
                    if shared is not None or micro is not None:
                        parts = (shared or micro).losses(batch, at.step)  # type: ignore[union-attr]
                    else:
                        parts = losses_of(student, batch, distillation)
                    if distillation is not None and distillation.unlabeled is not None:
                        add_unlabeled(parts, student, distillation, distillation.unlabeled.batch(seed, at.step))
                norm = update_rule.differentiate(parts)
                if norm is not None:
                    parts[GRADIENT] = norm
                record.add(parts)  # before the update: a loss found not finite has not spoiled the weights
                update_rule.step()
                if extras.average is not None:
                    extras.average.update()
                at.step, at.steps_in_epoch = at.step + 1, at.steps_in_epoch + 1
                at.seconds = seconds + time.monotonic() - began
                checkpoints.after_step(snapshot)
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError(f"out of time in epoch {at.epoch} of {plan.num_epochs}, after {at.step} steps.")
            at.seconds = seconds + time.monotonic() - began
            checkpoints.after_epoch(snapshot)
            rate = _rate(at.step - 1, plan, recipe, steps_per_epoch)
            yield record.result(plan.num_epochs, rate, at.seconds)
            at.epoch, at.steps_in_epoch = at.epoch + 1, 0
            checkpoints.after_epoch(snapshot)
        checkpoints.at_end(snapshot)


def _rate(step: int, plan: ResolvedSchedule, recipe: Recipe, steps_per_epoch: int) -> float:
    return recipe.learning_rate * rate_factor(step, plan.num_steps, recipe, steps_per_epoch)


def _set_training_mode(student: nn.Module, distiller: nn.Module | None, extras: StudentExtras) -> None:
    """Switch to training mode; at each epoch, since the caller may have measured the student in between."""
    student.train()
    for part in extras.frozen:
        part.eval()
    if distiller is not None:
        distiller.train()


class LossRecord:
    """The parts of the loss over an epoch: their means, and a check every few steps that all are finite.

    A part that is not finite makes later ones so. The error names the first one of the first bad step, in the order in
    which ``losses_of`` names them: a term before the sum that it spoils, and the gradient last.
    """

    def __init__(self, epoch: int, check_every: int) -> None:
        self._epoch = epoch
        self._check_every = check_every
        self._names: tuple[str, ...] = ()
        self._rows: list[Tensor] = []
        self._sums: np.ndarray | None = None
        self._num_steps = 0

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Add the parts of one step, the same ones at every step.

        Raises:
            NonFiniteError: if this step is one of those that check, and a part since the last check is not finite.
        """
        if not self._names:
            late = (TOTAL, GRADIENT)
            self._names = (*(name for name in parts if name not in late), *(n for n in late if n in parts))
        # One tensor, left on the device: to read numbers here would wait for the card at every step.
        self._rows.append(torch.stack([parts[name].detach().float() for name in self._names]))
        if len(self._rows) >= self._check_every:
            self._check()

    def _check(self) -> None:
        if not self._rows:
            return
        # One transfer, and float64 on the host alone: most cards are slow at it, and the numbers are few.
        rows = torch.stack(self._rows).cpu().numpy().astype(np.float64)
        if not np.isfinite(rows).all():
            self._raise(rows)
        self._sums = rows.sum(0) if self._sums is None else self._sums + rows.sum(0)
        self._num_steps += len(self._rows)
        self._rows.clear()

    def _raise(self, rows: np.ndarray) -> None:
        bad_step, bad_part = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        name, value = self._names[bad_part], float(rows[bad_step, bad_part])
        raise NonFiniteError(
            f"{name} is {value} in epoch {self._epoch}, step {self._num_steps + bad_step + 1}. "
            "Lower its weight or the learning rate, or clip the gradient."
        )

    def get_state(self) -> dict[str, Any]:
        """Return names, sums and number of steps so far, for a checkpoint.

        Raises:
            NonFiniteError: if a part since the last check is not finite: such a state is not worth saving.
        """
        self._check()
        sums = None if self._sums is None else torch.from_numpy(self._sums)  # checkpoints hold tensors alone
        return {"names": list(self._names), "sums": sums, "num_steps": self._num_steps}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``get_state`` returned."""
        self._names, self._num_steps = tuple(state["names"]), state["num_steps"]
        self._sums = None if state["sums"] is None else state["sums"].cpu().numpy()

    def result(self, num_epochs: int, learning_rate: float, seconds: float) -> EpochResult:
        """Return the means of the epoch.

        Raises:
            NonFiniteError: if a part of the last steps is not finite.
        """
        self._check()
        assert self._sums is not None, "an epoch has at least one step"
        means = dict(zip(self._names, (self._sums / self._num_steps).tolist()))
        means.pop(GRADIENT, None)
        return EpochResult(self._epoch, num_epochs, means, means[TASK], means.get(DISTILL, 0.0), learning_rate, seconds)
