"""A moving average of a student's weights: steadier than the weights of a training that is cut off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average over the steps of a training of all weights and norm statistics of ``student``.

    Step n (0-based) sets the average a to d a + (1 - d) w, d = min(decay, n / (n + 9)), w the weights. So the first
    step copies the weights, and the average reaches back over a tenth of the steps done until ``decay`` is reached:
    weights of the very beginning must not stay in it. At a constant rate it is close to what annealing the rate would
    give (Polyak and Juditsky, SIAM J. Control Optim. 30, 1992; Izmailov et al., "Averaging weights leads to wider
    optima", UAI 2018).
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay is {decay}: give a number between 0 and 1, without either.")
        self._student = student
        self._decay = decay
        self._num_steps = 0
        self._averages = [tensor.detach().clone() for tensor in self._tensors()]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average toward the weights, after a step."""
        decay = min(self._decay, self._num_steps / (self._num_steps + 9))
        self._num_steps += 1
        for average, tensor in zip(self._averages, self._tensors(), strict=True):
            average.lerp_(tensor, 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the student the averages inside the block; afterwards it has its own weights again, bit for bit."""
        own = [tensor.detach().clone() for tensor in self._tensors()]
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(own)

    def get_state(self) -> dict[str, Any]:
        """Return averages and number of steps, for a checkpoint; the tensors are the average's own."""
        return {"num_steps": self._num_steps, "averages": list(self._averages)}

    @torch.no_grad()
    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``get_state`` returned."""
        self._num_steps = state["num_steps"]
        for average, saved in zip(self._averages, state["averages"], strict=True):
            average.copy_(saved)

    # In place, since optimizer and norms hold these very tensors.
    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for tensor, value in zip(self._tensors(), values, strict=True):
            tensor.copy_(value)

    def _tensors(self) -> list[Tensor]:
        """Return parameters and norm statistics; counters of batches are integers and are not averaged."""
        return [t for t in (*self._student.parameters(), *self._student.buffers()) if t.is_floating_point()]


def averaged(average: WeightAverage | None) -> AbstractContextManager[None]:
    """Return a block in which the student has its averaged weights; without an average, its own."""
    return nullcontext() if average is None else average.in_place()
