"""The optimizer of a training: parameter groups, the schedule as a function of the step, clipping, precision.

``autokd.training.optim.update`` puts them together into the update of a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from autokd.config.recipes import Recipe
from autokd.errors import ConfigError
from autokd.training.optim.dot import DistillationOrientedSGD
from autokd.training.optim.trajectory import TrajectoryGuidedSGD

DOT_MOMENTUM = 0.9
RATE_FACTOR = "rate_factor"
"""Key of a parameter group: the factor of its learning rate."""
START_FRACTION = 1 / 25
"""Fraction of the peak rate at the first step of a one-cycle schedule."""
END_FRACTION = 1e-4
"""Fraction of the peak rate at the last step of a one-cycle schedule."""


def rate_factor(step: int, num_steps: int, recipe: Recipe, steps_per_epoch: int = 1) -> float:
    """Return the learning rate of a step as a fraction of the recipe's.

    one_cycle is a cosine from START_FRACTION up to 1 over the warm-up, then a cosine down to END_FRACTION at the last
    step (Smith and Topin, arXiv:1708.07120). The others, constant, multi_step, cosine and poly, are those of mmengine,
    times a linear rise from ``warmup_start`` to 1.

    Args:
        step: 0-based number of the step.
        num_steps: steps of the whole schedule.
        recipe: the schedule's name and parameters.
        steps_per_epoch: steps after which a schedule by epochs changes the rate.
    """
    if recipe.schedule != "one_cycle":
        return _rise(step, num_steps, recipe) * _fall(step, num_steps, recipe, steps_per_epoch)
    last = max(num_steps - 1, 1)
    peak = recipe.warmup_fraction * last if recipe.warmup_steps is None else min(recipe.warmup_steps, last)
    if step < peak:
        return _cosine(START_FRACTION, 1.0, step / peak)
    return _cosine(1.0, END_FRACTION, (step - peak) / max(last - peak, 1.0))


def _rise(step: int, num_steps: int, recipe: Recipe) -> float:
    """Return mmengine's LinearLR with ``end`` = the steps of the warm-up, which reaches 1 at the last of them."""
    num_rising = recipe.warmup_steps
    if num_rising is None:
        num_rising = 0 if recipe.schedule == "constant" else round(recipe.warmup_fraction * num_steps)
    if step >= num_rising:
        return 1.0
    return recipe.warmup_start + (1 - recipe.warmup_start) * step / max(num_rising - 1, 1)


def _fall(step: int, num_steps: int, recipe: Recipe, steps_per_epoch: int) -> float:
    """Return the factor by which the schedule lowers the rate, without the warm-up."""
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "multi_step":
        return recipe.gamma ** sum(step >= round(part * num_steps) for part in recipe.milestones)
    # In units of epochs the rate is that of the epoch's beginning, as mmengine's ``by_epoch`` keeps it.
    unit = steps_per_epoch if recipe.changes_by == "epoch" else 1
    begin, end = (round(part * num_steps / unit) for part in recipe.schedule_span)
    length = max(end - begin, 1)
    past = min(max(step // unit - begin, 0), length - 1)
    if recipe.schedule == "cosine":
        return _cosine(1.0, recipe.end_factor, past / length)
    return recipe.end_factor + (1 - recipe.end_factor) * (1 - past / max(length - 1, 1)) ** recipe.power


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def parameter_groups(
    student: nn.Module,
    distiller: nn.Module | None,
    weight_decay: float,
    norm_decay: float = 0.0,
    bias_decay: float = 0.0,
    backbone: nn.Module | None = None,
    backbone_factor: float = 1.0,
) -> list[dict[str, object]]:
    """Return the trainable parameters in groups by owner, weight decay and factor of the learning rate.

    Args:
        student: the student.
        distiller: the distiller, whose parameters are trained too.
        weight_decay: the decay of weights.
        norm_decay: factor to ``weight_decay`` for the parameters of normalization layers.
        bias_decay: factor to ``weight_decay`` for biases and whatever else has fewer than two dimensions.
        backbone: the part of the student whose rate has a factor of its own; None: no part.
        backbone_factor: that factor.
    """
    groups: list[dict[str, object]] = []
    of_backbone = set() if backbone is None else set(backbone.parameters())
    for owner, module in (("student", student), ("distiller", distiller)):
        parameters = trainable(module)
        norms = _of_norms(module)
        factors = {p: norm_decay if p in norms else 1.0 if p.ndim >= 2 else bias_decay for p in parameters}
        for factor in sorted({1.0, norm_decay, bias_decay}, reverse=True):
            for is_backbone in (False, True):
                members = [p for p in parameters if factors[p] == factor and (p in of_backbone) == is_backbone]
                if members:
                    rate_factor = backbone_factor if is_backbone else 1.0
                    group = {"params": members, "weight_decay": factor * weight_decay, "owner": owner}
                    groups.append(group | {RATE_FACTOR: rate_factor})
    return groups


_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)


def _of_norms(module: nn.Module | None) -> set[nn.Parameter]:
    """Return the parameters of normalization layers."""
    modules = [] if module is None else [part for part in module.modules() if isinstance(part, _NORMS)]
    return {parameter for part in modules for parameter in part.parameters(recurse=False)}


def trainable(module: nn.Module | None) -> list[nn.Parameter]:
    """Return the parameters that get a gradient."""
    return [] if module is None else [p for p in module.parameters() if p.requires_grad]


def make_optimizer(groups: list[dict[str, object]], recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW or SGD with momentum, fused, which is several times faster on a CPU too; DOT; or guided SGD."""
    if recipe.optimizer == "dot":
        return DistillationOrientedSGD(groups, recipe.learning_rate, DOT_MOMENTUM, recipe.dot_delta)
    if recipe.optimizer == "trajectory":
        rank, outside = recipe.trajectory_rank, recipe.trajectory_outside
        return TrajectoryGuidedSGD(groups, recipe.learning_rate, DOT_MOMENTUM, rank, outside)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    momentum, nesterov = recipe.momentum, recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=momentum, nesterov=nesterov, fused=True)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None) -> Tensor | None:
    """Scale the gradients to a joint norm of at most ``max_norm``; return the norm before, or None without a limit."""
    if max_norm is None:
        return None
    return nn.utils.clip_grad_norm_(parameters, max_norm)


class Precision:
    """Mixed precision on a GPU (bfloat16 if the card has it, else float16 with loss scaling), none on a CPU."""

    def __init__(self, device: torch.device, amp: bool | str, can_scale: bool = True) -> None:
        """Choose the precision.

        Args:
            device: device of the training.
            amp: False for full precision; True or "auto" for mixed precision, if the device has it.
            can_scale: whether the optimizer can work with a scaled loss, which float16 needs. If not, "auto" trains in
                full precision on a card without bfloat16.

        Raises:
            ConfigError: if ``amp`` is True on such a card.
        """
        self._device = device
        self.is_mixed = device.type == "cuda" and amp is not False
        self._dtype = torch.float32
        if self.is_mixed:
            # Cards before Ampere emulate bfloat16, at a fraction of float16's speed: they count as having none.
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
            self._dtype = torch.bfloat16 if has_bfloat16 else torch.float16
        if self._dtype == torch.float16 and not can_scale:
            if amp is True:
                raise ConfigError(
                    "amp: true needs a scaled loss on this card, which has no bfloat16, and 'optimizer: dot' and "
                    "'trajectory' keep two losses apart. Set 'amp: false' or 'auto', or take another optimizer."
                )
            self.is_mixed, self._dtype = False, torch.float32
        is_scaled = self._dtype == torch.float16
        self._scaler = torch.amp.GradScaler(device.type, enabled=is_scaled)

    @property
    def is_scaled(self) -> bool:
        """Whether losses are scaled (float16).

        The scaler then skips a step whose gradients are not finite and lowers its scale: they are no failure.
        """
        return self._scaler.is_enabled()

    def get_state(self) -> dict[str, Any]:
        """Return the state of the loss scaling; empty without."""
        state: dict[str, Any] = self._scaler.state_dict()
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``get_state`` returned; one of another precision changes nothing."""
        if state and self.is_scaled:
            self._scaler.load_state_dict(dict(state))

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass."""
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=self.is_mixed)

    def backward(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Compute the gradients of ``loss``, free of the scale, so that clipping sees their true norm."""
        if not self.is_scaled:
            loss.backward()
            return
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move the parameters, unless a scaled step has gradients that are not finite."""
        if not self.is_scaled:
            optimizer.step()
            return
        self._scaler.step(optimizer)
        self._scaler.update()
