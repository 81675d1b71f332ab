"""The state of a training between two steps: all that decides how it goes on, and its position.

What is not here is a function of (seed, epoch, step): the order of images, their views, the random numbers of a step,
the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from autokd.errors import CheckpointError
from autokd.training.optim.averaging import WeightAverage
from autokd.training.optim.update import UpdateRule


@dataclass
class Position:
    """Place of a training in its schedule and in the data.

    Attributes:
        epoch: the epoch in work, from 1.
        step: steps done in all.
        steps_in_epoch: steps done in this epoch; 0: it has not begun.
        seconds: time of the steps done, in all processes that worked on the training.
    """

    epoch: int = 1
    step: int = 0
    steps_in_epoch: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class TrainingState:
    """The parts of a training that change from step to step.

    Attributes:
        student: the student.
        distiller: the distiller with its parameters, memories and measured weights; None without distillation.
        update_rule: optimizer and scaler.
        average: the moving average of the student's weights, if there is one.
        device: device of the training, whose generator is part of the state.
        position: place in the schedule.
    """

    student: nn.Module
    distiller: nn.Module | None
    update_rule: UpdateRule
    average: WeightAverage | None
    device: torch.device
    position: Position = field(default_factory=Position)

    def snapshot(self) -> dict[str, Any]:
        """Return the state as copies on the CPU, which later steps do not change."""
        state: dict[str, Any] = {
            "position": asdict(self.position),
            "student": self.student.state_dict(),
            "distiller": None if self.distiller is None else self.distiller.state_dict(),
            "update": self.update_rule.get_state(),
            "average": None if self.average is None else self.average.get_state(),
            "random": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        copied: dict[str, Any] = on_cpu(state)
        return copied

    @property
    def num_bytes(self) -> int:
        """Bytes of a snapshot, about: parameters, up to two tensors of an optimizer for each, buffers, an average."""
        modules = [module for module in (self.student, self.distiller) if module is not None]
        parameters = sum(p.nbytes for module in modules for p in module.parameters())
        buffers = sum(b.nbytes for module in modules for b in module.buffers())
        return 3 * parameters + buffers + (parameters if self.average is not None else 0)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what ``snapshot`` returned.

        Raises:
            CheckpointError: if it is that of another student or distiller; nothing is changed then.
        """
        for name, module in (("student", self.student), ("distiller", self.distiller)):
            _check_fits(name, module, state[name])
        if (state["average"] is None) != (self.average is None):
            raise CheckpointError(
                "the checkpoint's moving average of weights does not fit the recipe. Remove the file."
            )
        self.student.load_state_dict(state["student"])
        if self.distiller is not None:
            self.distiller.load_state_dict(state["distiller"])
        self.update_rule.set_state(state["update"])
        if self.average is not None:
            self.average.set_state(state["average"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
        self.position = Position(**state["position"])


def on_cpu(value: Any) -> Any:
    """Return a copy of a nested state whose tensors are copies on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: on_cpu(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(on_cpu(part) for part in value)
    return value


def _check_fits(name: str, module: nn.Module | None, state: Mapping[str, Any] | None) -> None:
    """Compare names and shapes, before anything is loaded."""
    own = _shapes({} if module is None else module.state_dict())
    found = _shapes(state or {})
    if own != found:
        different = sorted(key for key in own.keys() | found.keys() if own.get(key) != found.get(key))
        raise CheckpointError(
            f"the checkpoint's {name} differs from this one in {', '.join(different[:3])}. Remove the file: the "
            "training then begins anew."
        )


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
