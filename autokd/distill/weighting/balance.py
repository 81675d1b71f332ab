"""Relative weights: a factor that keeps each term's gradient norm at a ratio to the task loss's.

factor = ratio * ||d task / d taps|| / ||d term / d taps||, taps = all maps of the student's pyramid together. It is
measured in each of the first steps (their geometric mean), then every ``every`` steps, and follows the drift as a
moving mean of logarithms (factors range over decades, where a mean is little but the largest). So a ratio means
the same for every form of term and at every time of the training. Without ``every`` the first factors stay, and the
ratios drift.

A batch can leave a term nothing to differ in, and its gradient is then rounding: ``rounding`` refuses it as a
measurement. One that is not refused, yet far from the factor so far, is not averaged: the factor is then the
geometric mean of those of the last three measurements that are near the least of them, until three in a row agree.
The least, since a factor that is too small costs a few steps, and one that is too large costs the student. Later, only
one that is far below the factor is so taken; one above it draws the factor up by a few times at most. Where
measurements agree, nothing of this changes a factor. A term that was refused, or whose measurements disagree, is
measured again in the next step.

A second rule holds a term's share of the gradient, ||term|| / (||task|| + ||term||) with its factor, over whole epochs,
as RT-DETRv4 does: the first measurements give the factor as above; then it stays, the shares of an epoch's measurements
are averaged, and where the mean left the target by more than ``BAND`` the next epoch begins with the factor that would
have met it, within ``CLAMP`` times the first factor.

Legend: T relative terms, those of both rules.
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
"""Greatest distance of log factors of neighboring steps that agree. Honest measurements of a term stay within a few
times each other, rounding differs from them by 1e3 and more. The mean of three of which two are off by 5 is off by 3.
"""
_DRIFT = math.log(100.0)
"""Greatest distance of a later measurement below the factor that still is drift: in the first 20 steps of a student
gradients change by up to 30 times."""
_MAX_GROWTH = math.log(10.0)
"""The most that a log factor is drawn upwards by one later measurement: a term near 0 would otherwise get a factor that
is too large for the next batch."""
_MAX_FACTOR = 1e12
BAND = 0.05
"""Greatest distance of an epoch's mean share from its target at which the factor stays."""
CLAMP = 10.0
"""Most that a factor that holds a share may leave the first one, as a quotient either way."""


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
    holds_share_T: Tensor
    log_first_T: Tensor
    shares_T: Tensor
    num_shares_T: Tensor
    latest_shares_T: Tensor

    def __init__(
        self,
        ratios: Sequence[float],
        every: int | None,
        sum_over_processes: SumOverProcesses | None = None,
        holds_share: Sequence[bool] | None = None,
    ) -> None:
        """Begin without a measurement.

        Args:
            ratios: the ratio of each relative term's gradient norm to the task's.
            every: steps between two measurements after the first ones; None for no further measurement.
            sum_over_processes: joins what processes that train one student have measured; None if there is one.
            holds_share: for each term whether its factor is changed between epochs alone, to hold the share
                ratio / (1 + ratio); None: no term's is.
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
        holds = [False] * size if holds_share is None else list(holds_share)
        self.register_buffer("holds_share_T", torch.tensor(holds, dtype=torch.bool), persistent=False)
        for name in ("log_first_T", "shares_T", "num_shares_T"):
            self.register_buffer(name, torch.zeros(size))
        # Shown alone. No buffer of the state, so that earlier checkpoints fit; ``get_extra_state`` has it.
        self.register_buffer("latest_shares_T", torch.full((size,), math.nan), persistent=False)
        self.register_buffer("log_factors_T", torch.zeros(size))
        self.register_buffer("num_measured_T", torch.zeros(size))
        self.register_buffer("recent_T3", torch.full((size, FIRST_STEPS), math.inf))
        self.register_buffer("disagrees_T", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("was_refused_T", torch.zeros(size, dtype=torch.bool))

    @property
    def factors_T(self) -> Tensor:
        """The factor of each term; 0 for a term of which nothing could be measured yet."""
        return torch.where(self.num_measured_T > 0, self.log_factors_T.exp(), 0.0)

    @property
    def latest_shares(self) -> list[float]:
        """Each term's share of the gradient at its last measurement; NaN before the first."""
        shares: list[float] = self.latest_shares_T.tolist()
        return shares

    @latest_shares.setter
    def latest_shares(self, shares: Sequence[float]) -> None:
        self.latest_shares_T.copy_(torch.tensor(shares))

    @torch.no_grad()
    def begin_epoch(self) -> None:
        """Change the factors of terms whose mean share in the epoch before left its band."""
        mean = (self.shares_T / self.num_shares_T.clamp_min(1)).clamp(1e-6, 1 - 1e-6)
        has_left = (self.num_shares_T > 0) & ((mean - self.ratios_T / (1 + self.ratios_T)).abs() > BAND)
        wanted = self.log_factors_T + self.ratios_T.log() - torch.logit(mean)
        wanted = torch.clamp(wanted, self.log_first_T - math.log(CLAMP), self.log_first_T + math.log(CLAMP))
        self.log_factors_T.copy_(torch.where(has_left, wanted, self.log_factors_T))
        self.shares_T.zero_()
        self.num_shares_T.zero_()

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
            joined = _joined(torch.cat([task_norm[None], norms]), self._sum_over_processes)
            task_norm, norms = joined[0], joined[1:]
            added = self._sum_over_processes(torch.cat([changes, sizes_of_values, differs]))
            changes, sizes_of_values, differs = added.split(len(due))
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
        is_held = self.holds_share_T[index] & (number >= FIRST_STEPS) & ~self.disagrees_T[index]
        away = log_measured - logs
        # Later, one that is far above is no reason to look again: several batches in a row can have almost nothing to
        # compare, so the factor grows slowly whatever they say.
        is_near_mean = torch.where(number < FIRST_STEPS, (number == 0) | (away.abs() <= _AGREEMENT), away >= -_DRIFT)
        is_steady = is_held | ~self.disagrees_T[index] & is_near_mean
        # 1 / (n + 1) makes the moving mean a plain mean of the first logarithms: their geometric mean.
        rate = torch.where(number < FIRST_STEPS, 1.0 / (number + 1), RATE)
        rate = torch.where(is_held, 0.0, rate)
        drawn = torch.where(number == 0, log_measured, torch.minimum(log_measured, logs + _MAX_GROWTH))
        followed = torch.lerp(logs, drawn, rate)
        newest = torch.cat([recent[:, 1:], log_measured[:, None]], 1)
        is_near = newest <= newest.amin(1, keepdim=True) + _AGREEMENT
        center = torch.where(is_near, newest, 0.0).sum(1) / is_near.sum(1)
        self.log_factors_T[index] = torch.where(is_valid, torch.where(is_steady, followed, center), logs)
        self.recent_T3[index] = torch.where(is_valid[:, None], newest, recent)
        disagrees = ~is_steady & ~is_near.all(1)
        self.disagrees_T[index] = torch.where(is_valid, disagrees, self.disagrees_T[index])
        self.log_first_T[index] = torch.where(is_held, self.log_first_T[index], self.log_factors_T[index])
        # logit(share) = log(factor * ||term|| / ||task||).
        shares = torch.sigmoid(self.ratios_T[index].log() + logs - log_measured)
        self.latest_shares_T[index] = torch.where(is_valid, shares, self.latest_shares_T[index])
        counts = is_held & is_valid
        self.shares_T[index] += torch.where(counts, shares, 0.0)
        self.num_shares_T[index] += counts
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


def _joined(norms: Tensor, sum_over_processes: SumOverProcesses) -> Tensor:
    """The norms over all processes of vectors whose parts have these norms.

    Squares add up over parts, norms do not. By the sum of the norms first: a square of float32 can leave its range,
    and float64 is slow on most cards.
    """
    total = sum_over_processes(norms.clone())  # a copy: it may add in place
    scale = torch.where(total > 0, total, 1.0)
    return scale * sum_over_processes((norms / scale).square()).sqrt()


__all__ = ["GradientBalance", "SumOverProcesses"]
