"""SGD whose distillation gradient follows the principal directions of the task's recent gradients.

After optimization trajectory distillation: "Taxonomy Adaptive Cross-Domain Adaptation in Medical Imaging via
Optimization Trajectory Distillation", arXiv:2307.14709, where gradients lie in a space of few dimensions and the
directions of a reliable stream guide the updates of another. Here the task loss, which has true labels, is the reliable
stream.

Legend: T gradients of the trajectory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from autokd.training.optim.dot import DistillationOrientedSGD, Gradients

LENGTH = 16
"""Gradients of the trajectory; each is as large as the parameters."""
_LEAST_SHARE = 1e-6
"""A direction with less than this part of the greatest one's energy is rounding."""
_TRAJECTORY, _NUM_SEEN = "trajectory", "num_seen"


class TrajectoryGuidedSGD(DistillationOrientedSGD):
    """SGD with momentum on g_task + P g_distill + outside (g_distill - P g_distill).

    P projects on the span of the ``rank`` principal directions of the last 16 task gradients, this step's among them,
    of all parameters that both losses reach, taken together as one vector (not centered). ``outside`` 1 is SGD on the
    sum of both losses. Parameters that one loss alone reaches move as under SGD. No direction is ever written out: the
    T x T inner products of the trajectory give the coefficients of the projection.
    """

    def __init__(
        self, groups: list[dict[str, Any]], learning_rate: float, momentum: float, rank: int, outside: float
    ) -> None:
        super().__init__(groups, learning_rate, momentum, delta=0.0)
        self._rank, self._outside = rank, outside

    @torch.no_grad()
    def step(self, task: Gradients, distill: Gradients) -> None:  # type: ignore[override]
        """Move every parameter that one of the losses reaches.

        Args:
            task: gradients of the task loss, which also join the trajectory.
            distill: gradients of the distillation loss, at the same weights.
        """
        both = [p for group in self.param_groups for p in group["params"] if p in task and p in distill]
        for p in both:
            self._append(p, task[p])
        super().step(task, {**distill, **self._guided(both, distill)} if both else distill)

    def _append(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        """Put a gradient in place of the oldest of the parameter's trajectory."""
        state = self.state[parameter]
        if _TRAJECTORY not in state:
            state[_TRAJECTORY], state[_NUM_SEEN] = gradient.new_zeros(LENGTH, gradient.numel()), 0
        state[_TRAJECTORY][state[_NUM_SEEN] % LENGTH] = gradient.flatten()
        state[_NUM_SEEN] += 1

    def _guided(self, parameters: list[nn.Parameter], distill: Gradients) -> dict[nn.Parameter, Tensor]:
        rows = [self.state[p][_TRAJECTORY] for p in parameters]
        products_TT = torch.stack([row_TN @ row_TN.T for row_TN in rows]).sum(0)
        along_T = torch.stack([row_TN @ distill[p].flatten() for row_TN, p in zip(rows, parameters)]).sum(0)
        shares_T = projection_coefficients(products_TT, along_T, self._rank)
        return {
            p: self._outside * distill[p] + (1 - self._outside) * (shares_T @ row_TN).view_as(p)
            for p, row_TN in zip(parameters, rows)
        }


def projection_coefficients(products_TT: Tensor, along_T: Tensor, rank: int) -> Tensor:
    """Return the coefficients with which the trajectory's gradients sum to a projection on its principal directions.

    With products G G' = V diag(l) V', the direction k is G' v_k / sqrt(l_k), and the projection of d is
    G' V l^-1 V' G d over the greatest ``rank`` of l.

    Args:
        products_TT: inner products of each two gradients of the trajectory.
        along_T: inner products of each with the vector that is projected.
        rank: number of directions.

    Returns:
        (T,).
    """
    energies_T, directions_TT = torch.linalg.eigh(products_TT.double())  # ascending
    energies_R, directions_TR = energies_T[-rank:], directions_TT[:, -rank:]
    counts_R = energies_R > _LEAST_SHARE * energies_T[-1]
    inverse_R = torch.where(counts_R, 1 / torch.where(counts_R, energies_R, 1.0), 0.0)
    return (directions_TR @ (inverse_R * (directions_TR.T @ along_T.double()))).to(along_T)
