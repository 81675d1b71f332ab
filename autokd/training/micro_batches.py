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

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autokd.config import Recipe
from autokd.detectors import Detector
from autokd.targets import part_of
from autokd.training.distillation import Distillation, losses_of, required_taps, term_parts
from autokd.training.loader import Batch
from autokd.training.micro_passes import Autocast, MicroRunner, Passes, StudentNode
from autokd.training.optim.optimizer import trainable
from autokd.training.optim.update import TASK, TOTAL, UpdateRule
from autokd.training.seeds import seed_stream

_USABLE_SHARE = 0.8
"""Share of a GPU's free memory that micro-batches are fitted to: sizes of batches and boxes vary."""


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
        self._seed, self._device = seed, device
        self._runner = MicroRunner(student, required_taps(distillation), seed, device, autocast)
        self._keeps_gradients = keeps_gradients and distillation is None

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return what ``losses_of`` returns for the whole batch.

        Args:
            batch: the B images.
            step: 0-based number of the step in the training, which seeds its random numbers.
        """
        micro_batches = [cut(batch, first, self._size) for first in range(0, batch.num_images, self._size)]
        passes = Passes(self._runner, micro_batches, step)
        parameters = trainable(self._student)
        passes.first(parameters, keeps_gradients=self._keeps_gradients)
        task_loss, *taps = StudentNode.apply(passes, parameters, *parameters)
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


def cut(batch: Batch, first: int, size: int) -> Batch:
    """Return the part of a batch that begins at an image, of so many images at most."""
    rows = slice(first, first + size)
    targets = part_of(batch.targets, rows)
    return replace(batch, pairs=batch.pairs[rows], images_BCHW=batch.images_BCHW[rows], targets=targets)


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
    step = MicroRunner(student, required_taps(None), 0, device, autocast)
    peaks = []
    for count in (1, 2):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        with step.kept_statistics(), torch.enable_grad():
            loss = step.task_loss(step.run(cut(batch, 0, count), 0, 0))
            torch.autograd.grad(loss, trainable(student), allow_unused=True)
        peaks.append(torch.cuda.max_memory_allocated(device))
    free, _ = torch.cuda.mem_get_info(device)
    return MemoryUse(*peaks).fitting(free + torch.cuda.memory_reserved(device), batch.num_images)
