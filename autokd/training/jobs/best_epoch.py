"""The best epoch of a full training with ``patience``: when the training stops, and the student that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from autokd.detectors import Detector


class BestEpoch:
    """The epoch with the best value of a metric so far, and the student's state after it, on the CPU."""

    def __init__(self, metric: Literal["val_ap", "val_loss"], patience: int) -> None:
        """Begin without an epoch.

        Args:
            metric: name of the metric; ``val_ap`` is better if it is greater, ``val_loss`` if it is smaller.
            patience: epochs in a row without a better value after which the training stops.
        """
        self._sign = 1.0 if metric == "val_ap" else -1.0
        self._patience = patience
        self._best: float | None = None
        self._last_epoch = 0
        self.epoch = 0
        """The best epoch, from 1; of equals, the first."""
        self._student: dict[str, Tensor] = {}

    def add(self, epoch: int, value: float, student: Detector) -> None:
        """Take in the measurement of an epoch, and keep the student's state if it is the best."""
        self._last_epoch = epoch
        if self._best is None or self._sign * value > self._sign * self._best:
            self._best, self.epoch = value, epoch
            state = student.state_dict()
            self._student = {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}

    @property
    def is_over(self) -> bool:
        """Whether the best epoch is so long ago that the training stops."""
        return self._last_epoch - self.epoch >= self._patience

    def put(self, student: Detector) -> None:
        """Give the student the state of the best epoch."""
        student.load_state_dict(self._student)

    def get_state(self) -> dict[str, Any]:
        """Return everything measured and kept so far, for a checkpoint."""
        numbers = {"best": self._best, "epoch": self.epoch, "last_epoch": self._last_epoch}
        return numbers | {"student": dict(self._student)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``get_state`` returned."""
        self._best, self.epoch, self._last_epoch = state["best"], state["epoch"], state["last_epoch"]
        self._student = dict(state["student"])
