"""Relative weights: a factor that keeps each term's gradient norm at a ratio to the task loss's.

factor = ratio * ||d task / d taps|| / ||d term / d taps||, taps = all maps of the student's pyramid together. It is
measured in each of the first steps (their geometric mean), then every ``every`` steps, and follows the drift as a
moving mean of logarithms (factors range over decades, where a mean is little but the largest). So a ratio means
the same for every form of term and at every time of the training. Without ``every`` the first factors stay, and the
ratios drift.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from autokd.distill.weighting.measured import FIRST_STEPS, RATE, gradient_norm, is_due, scale_for
from autokd.errors import DistillError

SumOverProcesses = Callable[[Tensor], Tensor]
"""Adds up a tensor over the processes that share a batch."""

_RETRY_STEPS = 60
"""A term without a gradient so far (no boxes yet) is measured in each step before this one."""
_MAX_GROWTH = 10.0
"""The most that a factor may grow from one measurement to the next: a term near 0 would otherwise get a factor that
is far too large for the next batch."""
_MAX_FACTOR = 1e12


class GradientBalance(nn.Module):
    """The factors of the relative terms.

    They are buffers: checkpoints hold them, and no gradient reaches them.
    """

    log_factors: Tensor
    num_measured: Tensor
    ratios: Tensor

    def __init__(
        self, ratios: Sequence[float], every: int | None, sum_over_processes: SumOverProcesses | None = None
    ) -> None:
        """Begin without a measurement.

        Args:
            ratios: the ratio of each relative term's gradient norm to the task's.
            every: steps between two measurements after the first ones; None for no further measurement.
            sum_over_processes: joins the squared norms of processes that train one student; None if there is one.
        """
        super().__init__()
        self.every = every
        self._sum_over_processes = sum_over_processes
        self.was_measured = False
        """Whether there has been a measurement; without one a relative weight cannot be used."""
        self.is_waiting = True
        """Whether a term has had no gradient in any measurement so far; set by the distiller after each step."""
        self.register_buffer("ratios", torch.tensor(ratios, dtype=torch.float32), persistent=False)
        self.register_buffer("log_factors", torch.zeros(len(ratios)))
        self.register_buffer("num_measured", torch.zeros(len(ratios)))

    @property
    def factors(self) -> Tensor:
        """The factor of each term; 0 for a term that has had no gradient yet."""
        return torch.where(self.num_measured > 0, self.log_factors.exp(), 0.0)

    def is_due(self, step: int) -> bool:
        """Whether the factors are measured at ``step`` (counted from 0)."""
        return is_due(step, self.every) or (self.is_waiting and step < _RETRY_STEPS)

    def measure(
        self, task_loss: Tensor, values: Sequence[Tensor], taps: Sequence[Tensor], float_taps: Sequence[Tensor]
    ) -> None:
        """Follow the gradients of this batch; the graph is kept for the training's own backward.

        Args:
            task_loss: the student's own loss, a scalar.
            values: each relative term's value, a scalar.
            taps: the maps that the task loss was computed from.
            float_taps: the same in float32, which the terms were computed from.

        Raises:
            DistillError: if the task loss does not depend on ``taps``.
        """
        scale = scale_for(taps)
        task_norm = gradient_norm(task_loss * scale, taps)
        if task_norm is None:
            raise DistillError(
                "the task losses have no gradient on the student's pyramid, so no relative weight can be measured: "
                "the heads must read the very tensors that DetectorOutputs.pyramid holds, not copies of them."
            )
        found = [gradient_norm(value, float_taps) for value in values]
        norms = torch.stack([torch.zeros_like(task_norm) if norm is None else norm for norm in found])
        task_norm = task_norm / scale
        if self._sum_over_processes is not None:
            joined = _joined(torch.cat([task_norm[None], norms]), self._sum_over_processes)
            task_norm, norms = joined[0], joined[1:]
        self._follow(self.ratios * task_norm / norms)
        self.was_measured = True

    @torch.no_grad()
    def _follow(self, measured: Tensor) -> None:
        """Move the factors towards ``measured``; one that is 0 or not finite (no gradient) stays as it is."""
        is_first = self.num_measured == 0
        ceiling = torch.where(is_first, _MAX_FACTOR, (self.log_factors.exp() * _MAX_GROWTH).clamp_max(_MAX_FACTOR))
        is_valid = measured.isfinite() & (measured > 0)
        log_measured = torch.where(is_valid, torch.minimum(measured, ceiling), 1.0).log()
        # 1 / (n + 1) makes the moving mean a plain mean of the first logarithms: their geometric mean.
        rate = torch.where(self.num_measured < FIRST_STEPS, 1.0 / (self.num_measured + 1), RATE)
        followed = torch.lerp(self.log_factors, log_measured, rate)
        self.log_factors.copy_(torch.where(is_valid, followed, self.log_factors))
        self.num_measured.add_(is_valid)


def _joined(norms: Tensor, sum_over_processes: SumOverProcesses) -> Tensor:
    """The norms over all processes of vectors whose parts have these norms.

    Squares add up over parts, norms do not. By the sum of the norms first: a square of float32 can leave its range,
    and float64 is slow on most cards.
    """
    total = sum_over_processes(norms.clone())  # a copy: it may add in place
    scale = torch.where(total > 0, total, 1.0)
    return scale * sum_over_processes((norms / scale).square()).sqrt()
