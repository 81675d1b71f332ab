"""DOT: SGD that keeps the momentum of the distillation gradient apart from that of the task's.

Zhao et al., "DOT: A Distillation-Oriented Trainer", arXiv:2307.08436, section 4, with the details of its published
implementation: plain momentum (not Nesterov's), no dampening.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

Gradients = Mapping[nn.Parameter, Tensor]
"""Parameter -> gradient; parameters that the loss does not reach are left out."""

TASK, DISTILL = "task_momentum", "distill_momentum"


class DistillationOrientedSGD(torch.optim.Optimizer):
    """Two buffers for each parameter w that both losses reach, starting at zero:

        v_task    <- (momentum - delta) v_task    + g_task + weight_decay w
        v_distill <- (momentum + delta) v_distill + g_distill
        w         <- w - lr (v_task + v_distill)

    A parameter that one loss alone reaches at a step (a distiller's own; prediction layers that no term looks at;
    every one where nothing is distilled) moves as under SGD: its buffer keeps ``momentum``, and the decay goes with
    the gradient that is there; the other buffer rests. So delta = 0 is SGD with momentum on the sum of both losses,
    and without distillation DOT is SGD with momentum.
    """

    def __init__(self, groups: list[dict[str, Any]], learning_rate: float, momentum: float, delta: float) -> None:
        assert 0 <= delta < min(momentum, 1 - momentum), "both buffers must decay; the recipe's range sees to it"
        super().__init__(groups, {"lr": learning_rate, "weight_decay": 0.0})
        self._momentum, self._delta = momentum, delta

    @torch.no_grad()
    def step(self, task: Gradients, distill: Gradients) -> None:  # type: ignore[override]
        """Move every parameter that one of the losses reaches.

        Args:
            task: gradients of the task loss.
            distill: gradients of the distillation loss, at the same weights.
        """
        for group in self.param_groups:
            both = [p for p in group["params"] if p in task and p in distill]
            task_only = [p for p in group["params"] if p in task and p not in distill]
            distill_only = [p for p in group["params"] if p in distill and p not in task]
            rate, decay = group["lr"], group["weight_decay"]
            moves = (
                (both, TASK, task, self._momentum - self._delta, decay),
                (task_only, TASK, task, self._momentum, decay),
                (distill_only, DISTILL, distill, self._momentum, decay),
            )
            # All buffers first, then all weights: the decay of each buffer must read the weights at which the gradients
            # were taken.
            velocities = [(move[0], self._velocities(*move)) for move in moves]
            # The decay enters one of a parameter's two buffers, or it would count twice.
            velocities.append((both, self._velocities(both, DISTILL, distill, self._momentum + self._delta, 0.0)))
            for parameters, buffers in velocities:
                if parameters:
                    torch._foreach_add_(parameters, buffers, alpha=-rate)

    def _velocities(
        self, parameters: list[nn.Parameter], name: str, gradients: Gradients, momentum: float, decay: float
    ) -> list[Tensor]:
        """Return the buffers ``name`` of ``parameters``, after this step's gradients are added."""
        if not parameters:
            return []
        for p in parameters:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        buffers = [self.state[p][name] for p in parameters]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, [gradients[p] for p in parameters])
        if decay:
            torch._foreach_add_(buffers, list(parameters), alpha=decay)
        return buffers
