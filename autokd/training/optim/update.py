"""Update rules: from the parts of a loss to moved parameters, by gradients, clipping and the optimizer's step.

``StandardUpdate`` differentiates the sum of all parts, as most optimizers want it. ``DotUpdate`` keeps the gradients of
task and distillation apart for DOT and for SGD guided by a trajectory, at the price of a second backward pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn

from autokd.config import Recipe
from autokd.detectors import Detector
from autokd.training.optim.dot import DistillationOrientedSGD
from autokd.training.optim.optimizer import (
    RATE_FACTOR,
    Precision,
    clip_gradients,
    make_optimizer,
    parameter_groups,
    trainable,
)

TOTAL, TASK, DISTILL = "total", "task", "distill"
"""Names of the parts that have a graph; ``distill`` is absent in a training without distillation."""

_CLIP_EPSILON = 1e-6
"""Guard against a division by zero, of the size of that in torch's ``clip_grad_norm_``."""


class UpdateRule(ABC):
    """Moves the trainable parameters of student and distiller; the distiller's never get the task's gradient."""

    can_scale = True
    """Whether the rule can work with a scaled loss (float16)."""

    def __init__(self, student: nn.Module, distiller: nn.Module | None, recipe: Recipe, device: torch.device) -> None:
        decays = recipe.weight_decay, recipe.norm_decay, recipe.bias_decay
        factor = recipe.backbone_lr_factor
        backbone = student.body if factor != 1 and isinstance(student, Detector) else None
        groups = parameter_groups(student, distiller, *decays, backbone, factor)
        self.optimizer = make_optimizer(groups, recipe)
        self.precision = Precision(device, recipe.amp, self.can_scale)
        self._owners = (trainable(student), trainable(distiller))
        self._max_norm = recipe.gradient_clip_norm
        self.optimizer.zero_grad(set_to_none=True)

    def get_state(self) -> dict[str, Any]:
        """Return the state of optimizer and scaler between two steps, for a checkpoint; tensors are their own."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.precision.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``get_state`` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.set_state(state["scaler"])

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step; the backbone's parameters have a factor of their own."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group[RATE_FACTOR]

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of the forward pass: the recipe's precision."""
        return self.precision.autocast()

    @abstractmethod
    def differentiate(self, parts: Mapping[str, Tensor]) -> Tensor | None:
        """Compute and clip the gradients of a step.

        Student and distiller are clipped apart: a large gradient of the distiller must not slow the student down.

        Args:
            parts: losses by name; ``TOTAL``, ``TASK`` and ``DISTILL`` have graphs.

        Returns:
            The norm of the student's gradient before clipping; None if it is not clipped, or if float16 may make it
            infinite without harm.
        """

    @abstractmethod
    def step(self) -> None:
        """Move the parameters along the gradients of the last ``differentiate``."""


class StandardUpdate(UpdateRule):
    """One backward pass for the sum of all parts."""

    def differentiate(self, parts: Mapping[str, Tensor]) -> Tensor | None:
        self.precision.backward(parts[TOTAL], self.optimizer)
        norms = [clip_gradients(parameters, self._max_norm) for parameters in self._owners]
        return None if self.precision.is_scaled else norms[0]

    def step(self) -> None:
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)  # now, so that the next forward has the memory


class DotUpdate(UpdateRule):
    """Two backward passes, of the task loss and of the distillation loss, for optimizers that keep these apart.

    Both gradients are clipped by one factor, that of their sum. So their ratio stays, and with ``dot_delta: 0`` the
    step is that of ``StandardUpdate``.
    """

    can_scale = False

    def differentiate(self, parts: Mapping[str, Tensor]) -> Tensor | None:
        student, distiller = self._owners
        self._task: dict[nn.Parameter, Tensor]
        self._distill: dict[nn.Parameter, Tensor]
        # Without terms that reach a parameter the distillation loss is a constant, of which autograd has no gradient.
        has_distillation = DISTILL in parts and parts[DISTILL].requires_grad
        self._task = _gradients(parts[TASK], student, keep_graph=has_distillation)
        self._distill = _gradients(parts[DISTILL], student + distiller) if has_distillation else {}
        norms = [self._clip(parameters) for parameters in self._owners]
        return norms[0]

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor | None:
        """Clip both gradients of these parameters; return the norm of their sum before."""
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
            # Not in place: autograd may give several parameters the same tensor, which would be clipped twice.
            if reached:
                gradients.update(zip(reached, torch._foreach_mul([gradients[p] for p in reached], factor)))
        return norm

    def step(self) -> None:
        cast(DistillationOrientedSGD, self.optimizer).step(self._task, self._distill)
        self._task, self._distill = {}, {}


def _gradients(loss: Tensor, parameters: list[nn.Parameter], keep_graph: bool = False) -> dict[nn.Parameter, Tensor]:
    """Return the gradients of the parameters that ``loss`` reaches."""
    found = torch.autograd.grad(loss, parameters, retain_graph=keep_graph, allow_unused=True)
    return {p: gradient for p, gradient in zip(parameters, found) if gradient is not None}


def make_update_rule(
    student: nn.Module, distiller: nn.Module | None, recipe: Recipe, device: torch.device
) -> UpdateRule:
    """Return the update rule of the recipe's optimizer.

    Raises:
        ConfigError: if the optimizer cannot work in the recipe's precision on this device.
    """
    kind = DotUpdate if recipe.optimizer in ("dot", "trajectory") else StandardUpdate
    return kind(student, distiller, recipe, device)
