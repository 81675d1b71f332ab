"""From the parts of a loss to moved parameters: gradients, clipping, the optimiser's step.

``StandardUpdate`` follows the sum of all parts, as most optimisers do; ``DotUpdate`` keeps the gradients of task
and distillation apart, as DOT wants them, at the price of a second backward pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import Tensor, nn

from autokd.config import Recipe
from autokd.training.optim.dot import DistillationOrientedSGD
from autokd.training.optim.optimizer import Precision, clip_gradients, make_optimiser, parameter_groups, trainable

TOTAL, TASK, DISTILL = "total", "task", "distill"
"""Names of the parts that carry a graph; ``distill`` is absent where nothing is distilled."""

_CLIP_EPSILON = 1e-6
"""As in torch's ``clip_grad_norm_``."""


class UpdateRule(ABC):
    """Moves the trainable parameters of student and distiller; the distiller's never get the task's gradient."""

    can_scale = True

    def __init__(self, student: nn.Module, distiller: nn.Module | None, recipe: Recipe, device: torch.device) -> None:
        decays = recipe.weight_decay, recipe.norm_decay, recipe.bias_decay
        self.optimiser = make_optimiser(parameter_groups(student, distiller, *decays), recipe)
        self.precision = Precision(device, recipe.amp, self.can_scale)
        self._owners = (trainable(student), trainable(distiller))
        self._max_norm = recipe.gradient_clip_norm
        self.optimiser.zero_grad(set_to_none=True)

    def set_rate(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def autocast(self) -> AbstractContextManager[object]:
        return self.precision.autocast()

    @abstractmethod
    def differentiate(self, parts: Mapping[str, Tensor]) -> Tensor | None:
        """Take and clip the gradients of a step; the norm of the student's before clipping, where it means something.

        Student and distiller are clipped apart: a distiller's great gradient must not slow the student down.
        """

    @abstractmethod
    def step(self) -> None:
        """Move the parameters along the gradients last taken."""


class StandardUpdate(UpdateRule):
    """One backward pass for the sum of all parts."""

    def differentiate(self, parts: Mapping[str, Tensor]) -> Tensor | None:
        self.precision.backward(parts[TOTAL], self.optimiser)
        norms = [clip_gradients(parameters, self._max_norm) for parameters in self._owners]
        return None if self.precision.is_scaled else norms[0]

    def step(self) -> None:
        self.precision.step(self.optimiser)
        self.optimiser.zero_grad(set_to_none=True)  # now, so that the next forward has the memory


class DotUpdate(UpdateRule):
    """The task's gradient and distillation's, each for itself, for DOT.

    They are clipped by one common factor, which their sum's norm decides: their ratio stays, and with
    ``dot_delta: 0`` the step is that of the sum.
    """

    can_scale = False

    def differentiate(self, parts: Mapping[str, Tensor]) -> Tensor | None:
        student, distiller = self._owners
        self._task: dict[nn.Parameter, Tensor]
        self._distill: dict[nn.Parameter, Tensor]
        has_distillation = DISTILL in parts and parts[DISTILL].requires_grad
        self._task = _gradients(parts[TASK], student, keep_graph=has_distillation)
        self._distill = _gradients(parts[DISTILL], student + distiller) if has_distillation else {}
        norms = [self._clip(parameters) for parameters in self._owners]
        return norms[0]

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor | None:
        task, distill = self._task, self._distill
        if self._max_norm is None or not parameters:
            return None
        sums = [
            task[p] + distill[p] if p in task and p in distill else task[p] if p in task else distill[p]
            for p in parameters
            if p in task or p in distill
        ]
        norm = nn.utils.get_total_norm(sums)
        factor = (self._max_norm / (norm + _CLIP_EPSILON)).clamp(max=1.0)
        for gradients in (task, distill):
            reached = [p for p in parameters if p in gradients]
            if reached:  # not in place: autograd may give several parameters one tensor
                gradients.update(zip(reached, torch._foreach_mul([gradients[p] for p in reached], factor)))
        return norm

    def step(self) -> None:
        cast(DistillationOrientedSGD, self.optimiser).step(self._task, self._distill)
        self._task, self._distill = {}, {}


def _gradients(loss: Tensor, parameters: list[nn.Parameter], keep_graph: bool = False) -> dict[nn.Parameter, Tensor]:
    """Those of the parameters that ``loss`` reaches."""
    found = torch.autograd.grad(loss, parameters, retain_graph=keep_graph, allow_unused=True)
    return {p: gradient for p, gradient in zip(parameters, found) if gradient is not None}


def make_update_rule(
    student: nn.Module, distiller: nn.Module | None, recipe: Recipe, device: torch.device
) -> UpdateRule:
    """The update_rule that the recipe's optimiser wants. ConfigError where it cannot work in the recipe's precision."""
    kind = DotUpdate if recipe.optimiser == "dot" else StandardUpdate
    return kind(student, distiller, recipe, device)
