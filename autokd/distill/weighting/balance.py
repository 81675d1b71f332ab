"""Relative weights: a factor that keeps each term's gradient norm at a ratio to the task loss's.

factor = ratio * ||d task / d taps|| / ||d term / d taps||, taps = all maps of the student's pyramid together. It is
measured in each of the first steps (their geometric mean), then every ``every`` steps, and follows the drift as a
moving mean of logarithms (factors range over decades, where a mean is little but the largest). So a ratio means
the same for every form of term and at every time of the training. Without ``every`` the first factors stay, and the
ratios drift.

A batch can leave a term nothing to differ in, and its gradient is then rounding: ``rounding`` refuses it as a
measurement. One that is not refused, yet far from the factor so far, moves nothing by itself: the factor is then the
geometric mean of those of the last three measurements that are near the least of them, until three in a row agree.
The least, since a factor that is too small costs a few steps, and one that is too large costs the student. Where
measurements agree, nothing of this changes a factor. A term that was refused, or whose measurements disagree, is
measured again in the next step.

Legend: T relative terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from autokd.distill.weighting.measured import FIRST_STEPS, RATE, gradient_norm, is_due, scale_for
from autokd.distill.weighting.rounding import MapSizes, is_rounding, measure_gradient
from autokd.errors import DistillError

SumOverProcesses = Callable[[Tensor], Tensor]
"""Adds up a tensor over the processes that share a batch."""

_RETRY_STEPS = 60
"""A term that is pending (refused, in disagreement, or measured too few times) is measured in each step before this."""
_LATE_RETRIES = 10
"""Later, the steps after a due one in which a term that has a factor is measured again while it is pending."""
_AGREEMENT = math.log(5.0)
"""Greatest distance of two log factors that agree. Honest measurements of a term stay within a few times each other,
rounding differs from them by 1e3 and more. The mean of three of which two are off by 5 is off by 3."""
_MAX_FACTOR = 1e12


class GradientBalance(nn.Module):
    """The factors of the relative terms.

    They are buffers: checkpoints hold them, and no gradient reaches them.
    """

    log_factors_T: Tensor
    num_measured_T: Tensor
    recent_T3: Tensor
    disagrees_T: Tensor
    was_refused_T: Tensor
    ratios_T: Tensor

    def __init__(
        self, ratios: Sequence[float], every: int | None, sum_over_processes: SumOverProcesses | None = None
    ) -> None:
        """Begin without a measurement.

        Args:
            ratios: the ratio of each relative term's gradient norm to the task's.
            every: steps between two measurements after the first ones; None for no further measurement.
            sum_over_processes: joins what processes that train one student have measured; None if there is one.
        """
        super().__init__()
        self.every = every
        self._sum_over_processes = sum_over_processes
        self.has_begun = False
        """Whether there has been a measurement, though all of it may have been refused."""
        self.is_pending = [True] * len(ratios)
        """For each term, whether it is to be measured at once; set by the distiller after each step."""
        self.is_active = [False] * len(ratios)
        """For each term, whether a measurement has been accepted so far; set likewise."""
        size = len(ratios)
        self.register_buffer("ratios_T", torch.tensor(ratios, dtype=torch.float32), persistent=False)
        self.register_buffer("log_factors_T", torch.zeros(size))
        self.register_buffer("num_measured_T", torch.zeros(size))
        self.register_buffer("recent_T3", torch.full((size, FIRST_STEPS), math.inf))
        self.register_buffer("disagrees_T", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("was_refused_T", torch.zeros(size, dtype=torch.bool))

    @property
    def factors_T(self) -> Tensor:
        """The factor of each term; 0 for a term of which nothing could be measured yet."""
        return torch.where(self.num_measured_T > 0, self.log_factors_T.exp(), 0.0)

    def due(self, step: int) -> list[int]:
        """Return the indices of the terms that are measured at ``step`` (counted from 0)."""
        if is_due(step, self.every):
            return list(range(len(self.is_pending)))
        is_early = step < _RETRY_STEPS
        is_soon_after = self.every is not None and step % self.every <= _LATE_RETRIES
        return [
            i
            for i, (pending, active) in enumerate(zip(self.is_pending, self.is_active, strict=True))
            if pending and (is_early or (active and is_soon_after))
        ]

    def measure(
        self,
        due: Sequence[int],
        task_loss: Tensor,
        values: Sequence[Tensor],
        taps: Sequence[Tensor],
        float_taps: Sequence[Tensor],
        teacher_maps: Sequence[Tensor],
        differ: Sequence[Tensor],
    ) -> None:
        """Follow the gradients of this batch; the graph is kept for the training's own backward.

        Args:
            due: indices of the terms that are measured.
            task_loss: the student's own loss, a scalar.
            values: each relative term's value, a scalar.
            taps: the maps that the task loss was computed from.
            float_taps: the same in float32, which the terms were computed from.
            teacher_maps: the teacher's maps, for their size.
            differ: for each of ``due``, whether its two sides differ by more than rounding; bool scalars.

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
        sizes = MapSizes.of(float_taps, teacher_maps)
        found = [measure_gradient(values[i], float_taps, sizes) for i in due]
        task_norm = task_norm / scale
        norms, changes, sizes_of_values = (
            torch.stack([getattr(each, name) for each in found]) for name in ("norm", "change", "value")
        )
        differs = torch.stack(list(differ)).to(norms)
        if self._sum_over_processes is not None:
            # Squares add up over parts of a batch, norms do not; in float64, as squares of float32 can overflow.
            squares = torch.cat([task_norm[None], norms]).double().square()
            others = torch.cat([changes, sizes_of_values, differs]).double()
            added = self._sum_over_processes(torch.cat([squares, others]))
            squares, changes, sizes_of_values, differs = added.split([1 + len(due), *[len(due)] * 3])
            task_norm, norms = squares[0].sqrt().float(), squares[1:].sqrt().float()
        is_noise = is_rounding(sizes_of_values, changes, sizes.rounding) | (differs == 0)
        index = torch.tensor(list(due), device=norms.device)
        self._follow(index, self.ratios_T[index] * task_norm / norms, is_noise)
        self.has_begun = True

    @torch.no_grad()
    def _follow(self, index: Tensor, measured: Tensor, is_noise: Tensor) -> None:
        """Move the factors of the terms at ``index`` towards ``measured``; one that is refused stays as it is."""
        is_valid = measured.isfinite() & (measured > 0) & ~is_noise
        log_measured = torch.where(is_valid, measured.clamp_max(_MAX_FACTOR), 1.0).log()
        logs, number, recent = self.log_factors_T[index], self.num_measured_T[index], self.recent_T3[index]
        is_steady = ~self.disagrees_T[index] & ((number == 0) | ((log_measured - logs).abs() <= _AGREEMENT))
        # 1 / (n + 1) makes the moving mean a plain mean of the first logarithms: their geometric mean.
        rate = torch.where(number < FIRST_STEPS, 1.0 / (number + 1), RATE)
        followed = torch.lerp(logs, log_measured, rate)
        newest = torch.cat([recent[:, 1:], log_measured[:, None]], 1)
        is_near = newest <= newest.amin(1, keepdim=True) + _AGREEMENT
        center = torch.where(is_near, newest, 0.0).sum(1) / is_near.sum(1)
        self.log_factors_T[index] = torch.where(is_valid, torch.where(is_steady, followed, center), logs)
        self.recent_T3[index] = torch.where(is_valid[:, None], newest, recent)
        disagrees = ~is_steady & ~is_near.all(1)
        self.disagrees_T[index] = torch.where(is_valid, disagrees, self.disagrees_T[index])
        self.num_measured_T[index] = number + is_valid
        self.was_refused_T[index] = ~is_valid

    def status(self) -> Tensor:
        """Return (2 T,) numbers for ``read_status``: left on the device, for a transfer that the caller does anyway."""
        is_pending = self.was_refused_T | self.disagrees_T | (self.num_measured_T < FIRST_STEPS)
        return torch.cat([is_pending, self.num_measured_T > 0]).float()

    def read_status(self, numbers: Sequence[float]) -> None:
        """Take what ``status`` returned, on the host."""
        flags = [number != 0.0 for number in numbers]
        self.is_pending, self.is_active = flags[: len(flags) // 2], flags[len(flags) // 2 :]


__all__ = ["GradientBalance", "SumOverProcesses"]
