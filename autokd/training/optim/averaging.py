"""A moving average of a student's weights, which is measured where the weights themselves still move a lot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average over the steps of a training of all weights and norm statistics of ``student``.

    After step n (from 1) it is d a + (1 - d) w, d = min(decay, n / (n + 9)): of the first step it is the weights, and
    it reaches back over a tenth of the steps done until ``decay`` is reached, as weights that come from nothing are no
    guide. At a constant rate it is close to what annealing the rate would give (Polyak and Juditsky, SIAM J. Control
    Optim. 30, 1992; Izmailov et al., "Averaging weights leads to wider optima", UAI 2018).
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay {decay}: give a number between 0 and 1")
        self._student = student
        self._decay = decay
        self._num_steps = 0
        self._averages = [tensor.detach().clone() for tensor in self._tensors()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are after a step."""
        decay = min(self._decay, self._num_steps / (self._num_steps + 9))
        self._num_steps += 1
        for average, tensor in zip(self._averages, self._tensors(), strict=True):
            average.lerp_(tensor, 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the student has the averages; afterwards its own weights again, bit for bit."""
        own = [tensor.detach().clone() for tensor in self._tensors()]
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for tensor, value in zip(self._tensors(), values, strict=True):
            tensor.copy_(value)

    def _tensors(self) -> list[Tensor]:
        """Parameters and buffers that can be averaged: counters cannot."""
        return [t for t in (*self._student.parameters(), *self._student.buffers()) if t.is_floating_point()]
