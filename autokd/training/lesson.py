"""What the student learns from in a step: the targets' losses, and beside them a lesson from the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from autokd.detectors import Detector
from autokd.distill import Distiller, DistillResult, TeacherEnsemble
from autokd.errors import DetectorError
from autokd.outputs import PYRAMID_TAP, DetectorOutputs
from autokd.training.loader import Batch
from autokd.training.optim.update import DISTILL, TASK, TOTAL


class TeacherTaps(Protocol):
    """Gives the teacher's taps of a batch, without gradient: from the cache or from the running teacher.

    Of several teachers, a tuple in their order.
    """

    def __call__(self, batch: Batch) -> DetectorOutputs | tuple[DetectorOutputs, ...]: ...


@dataclass(frozen=True, eq=False)
class Lesson:
    """What the student learns from beside the targets: the loss and where the teacher's taps come from.

    ``taps``: those of the student that the loss reads.
    """

    distiller: Distiller | TeacherEnsemble
    teacher: TeacherTaps
    taps: tuple[str, ...] = (PYRAMID_TAP,)


def losses_of(student: Detector, batch: Batch, lesson: Lesson | None) -> dict[str, Tensor]:
    """Every part of the loss by name, and their total with its graph."""
    outputs = student(batch.images_BCHW, batch.targets, taps=wanted_taps(lesson))
    task_loss = task_loss_of(outputs, student)
    parts = {f"task/{name}": loss for name, loss in (outputs.losses or {}).items()}
    parts[TASK] = task_loss
    parts[TOTAL] = task_loss
    if lesson is not None:
        result = lesson.distiller(outputs, lesson.teacher(batch), batch.targets)
        parts |= term_parts(result)
        parts[TOTAL] = task_loss + result.total
    return parts


def wanted_taps(lesson: Lesson | None) -> tuple[str, ...]:
    return lesson.taps if lesson else (PYRAMID_TAP,)


def task_loss_of(outputs: DetectorOutputs, student: Detector) -> Tensor:
    """The sum of the task losses; DetectorError where there are none."""
    if (task_loss := outputs.task_loss) is None:
        raise DetectorError(f"{type(student).__name__} gave no losses although it was given targets.")
    return task_loss


def term_parts(result: DistillResult) -> dict[str, Tensor]:
    """The parts of a distiller's loss by name; DISTILL carries the graph."""
    parts: dict[str, Tensor] = {}
    for name, value in result.terms.items():
        parts[f"distill/{name}"] = value.weighted
        parts[f"distill/{name} before its weight"] = value.raw
    parts[DISTILL] = result.total
    return parts
