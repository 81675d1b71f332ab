"""Relative weights: each term's gradient held at a ratio to the task loss's, on the student's taps.

factor = ratio * ||d task / d taps|| / ||d term / d taps||, taps = all maps of the student's pyramid together. It is
measured in each of the first steps (their geometric mean), then every ``every`` steps, and follows the drift as
a moving mean of logarithms. So a ratio means the same for every form of term and at every time of the training.
Without ``every`` the first factors stay, and the ratios drift.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from autokd.errors import DistillError

_FIRST_STEPS = 3
_RETRY_STEPS = 60
"""A term that has had no gradient yet (no boxes so far) is measured again in each of so many first steps."""
_RATE = 0.5
"""Part of the newest measurement in the moving mean, once the first steps are over."""
_MAX_GROWTH = 10.0
"""The most that a factor may grow from one measurement to the next: a term that is nearly 0 is not blown up."""
_MAX_FACTOR = 1e12
HALF_PRECISION_SCALE = 1024.0
"""Keeps the task's gradient on float16 taps above that format's smallest number."""


class GradientBalance(nn.Module):
    """The factors of the relative terms, as buffers: they survive checkpoints and are never differentiated."""

    log_factors: Tensor
    num_measured: Tensor
    ratios: Tensor

    def __init__(self, ratios: Sequence[float], every: int | None) -> None:
        super().__init__()
        self.every = every
        self.was_measured = False
        """Whether a measurement has taken place at all."""
        self.is_waiting = True
        """Whether some term has had no gradient in any measurement so far."""
        self.pool: Callable[[Tensor], Tensor] | None = None
        """Adds up, over processes that share a batch, the squared norms of the task and of each term; None: alone."""
        self.register_buffer("ratios", torch.tensor(ratios, dtype=torch.float32), persistent=False)
        self.register_buffer("log_factors", torch.zeros(len(ratios)))
        self.register_buffer("num_measured", torch.zeros(len(ratios)))

    @property
    def factors(self) -> Tensor:
        """The factor of each term; 0 for one that has had no gradient yet."""
        return torch.where(self.num_measured > 0, self.log_factors.exp(), 0.0)

    def is_due(self, step: int) -> bool:
        """Whether the factors are measured at ``step`` (counted from 0)."""
        return is_due(step, self.every) or (self.is_waiting and step < _RETRY_STEPS)

    def measure(
        self, task_loss: Tensor, values: Sequence[Tensor], taps: Sequence[Tensor], float_taps: Sequence[Tensor]
    ) -> None:
        """Take the factors from the gradients of this batch; the graph is kept for the training's own backward.

        taps: what the task loss was computed from. float_taps: the same in float32, what the terms were.
        """
        scale = HALF_PRECISION_SCALE if any(tap.dtype == torch.float16 for tap in taps) else 1.0
        task_norm = gradient_norm(task_loss * scale, taps)
        if task_norm is None:
            raise DistillError(
                "the task losses have no gradient on the student's pyramid, so no relative weight can be measured: "
                "the heads must look at the very tensors that DetectorOutputs.pyramid holds, not at copies of them."
            )
        found = [gradient_norm(value, float_taps) for value in values]
        norms = torch.stack([torch.zeros_like(task_norm) if norm is None else norm for norm in found])
        task_norm = task_norm / scale
        if self.pool is not None:
            squares = self.pool(torch.cat([task_norm[None], norms]).double().square())
            task_norm, norms = squares[0].sqrt().float(), squares[1:].sqrt().float()
        self._follow(self.ratios * task_norm / norms)
        self.was_measured = True

    @torch.no_grad()
    def _follow(self, measured: Tensor) -> None:
        """Move the factors towards ``measured``; what is 0 or not finite (no gradient) is passed over."""
        is_first = self.num_measured == 0
        ceiling = torch.where(is_first, _MAX_FACTOR, (self.log_factors.exp() * _MAX_GROWTH).clamp_max(_MAX_FACTOR))
        is_valid = measured.isfinite() & (measured > 0)
        log_measured = torch.where(is_valid, torch.minimum(measured, ceiling), 1.0).log()
        rate = torch.where(self.num_measured < _FIRST_STEPS, 1.0 / (self.num_measured + 1), _RATE)
        followed = torch.lerp(self.log_factors, log_measured, rate)
        self.log_factors.copy_(torch.where(is_valid, followed, self.log_factors))
        self.num_measured.add_(is_valid)


def is_due(step: int, every: int | None) -> bool:
    """Whether training-free factors are measured at ``step`` (counted from 0): at the first, then now and then (None:
    never again)."""
    return step < _FIRST_STEPS or (every is not None and step % every == 0)


def gradient_norm(value: Tensor, taps: Sequence[Tensor]) -> Tensor | None:
    """The norm of d value / d taps, all taps together; None where the value does not come from them."""
    if not value.requires_grad:
        return None
    gradients = torch.autograd.grad(value, taps, retain_graph=True, allow_unused=True)
    norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients if gradient is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else None
