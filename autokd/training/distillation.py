"""The losses of a step: the task losses of the targets and, beside them, a distillation loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from autokd.detector_outputs import PYRAMID_TAP, DetectorOutputs
from autokd.detectors import Detector
from autokd.distill import Distiller, DistillResult, TeacherEnsemble
from autokd.errors import DetectorError
from autokd.training.loader import Batch
from autokd.training.optim.update import DISTILL, TASK, TOTAL
from autokd.training.unlabeled import UnlabeledBatches

UNLABELED = "distill/unlabeled"
"""Name of the loss of images without boxes among the parts of a step's loss."""


class TeacherTaps(Protocol):
    """The taps of one teacher or of several, from a cache or from a teacher that runs beside the student."""

    def __call__(self, batch: Batch) -> DetectorOutputs | tuple[DetectorOutputs, ...]:
        """Return the teacher's taps of a batch, without gradient; of several teachers, a tuple in their order."""
        ...


@dataclass(frozen=True, eq=False)
class Distillation:
    """A distiller, and where the teacher's taps come from.

    Attributes:
        distiller: the distillation loss, with parameters of its own.
        teacher: returns the teacher's taps of a batch.
        taps: names of the student's taps that the loss reads.
        unlabeled: images without boxes that take part; None: none, or no term that could read them.
    """

    distiller: Distiller | TeacherEnsemble
    teacher: TeacherTaps
    taps: tuple[str, ...] = (PYRAMID_TAP,)
    unlabeled: UnlabeledBatches | None = None


def losses_of(student: Detector, batch: Batch, distillation: Distillation | None) -> dict[str, Tensor]:
    """Run the student on a batch.

    Returns:
        Every part of the loss by name, scalars: ``task/...`` and ``distill/...`` for logs, and ``TASK``, ``DISTILL``
        and their sum ``TOTAL`` with their graphs.

    Raises:
        DetectorError: if the student returns no losses.
    """
    outputs = student(batch.images_BCHW, batch.targets, taps=required_taps(distillation))
    task_loss = task_loss_of(outputs, student)
    parts = {f"task/{name}": loss for name, loss in (outputs.losses or {}).items()}
    parts[TASK] = task_loss
    parts[TOTAL] = task_loss
    if distillation is not None:
        result = distillation.distiller(outputs, distillation.teacher(batch), batch.targets)
        parts |= term_parts(result)
        parts[TOTAL] = task_loss + result.total
    return parts


def add_unlabeled(parts: dict[str, Tensor], student: Detector, distillation: Distillation, batch: Batch) -> None:
    """Add the loss of images without boxes to the parts of a step's loss: of ``DISTILL`` and ``TOTAL``, with its graph.

    Args:
        parts: those of the images with boxes.
        student: the student, in the mode of training.
        distillation: what has seen the images with boxes of this step, by which relative weights are measured.
        batch: the images without boxes.
    """
    assert distillation.unlabeled is not None, "a distillation with images without boxes"
    outputs, distiller = student(batch.images_BCHW, taps=distillation.taps), distillation.distiller
    outputs_t: Any = distillation.unlabeled.teacher(batch)  # one for each teacher of an ensemble
    loss = distillation.unlabeled.share * distiller.without_labels(outputs, outputs_t)
    parts[UNLABELED] = loss
    parts[DISTILL] = parts[DISTILL] + loss
    parts[TOTAL] = parts[TOTAL] + loss


def required_taps(distillation: Distillation | None) -> tuple[str, ...]:
    """Return the names of the student's taps that a step reads."""
    return distillation.taps if distillation else (PYRAMID_TAP,)


def task_loss_of(outputs: DetectorOutputs, student: Detector) -> Tensor:
    """Return the sum of the task losses.

    Raises:
        DetectorError: if there are none.
    """
    if (task_loss := outputs.task_loss) is None:
        raise DetectorError(f"{type(student).__name__} returned no losses although it was given targets.")
    return task_loss


def term_parts(result: DistillResult) -> dict[str, Tensor]:
    """Return the parts of a distiller's loss by name; ``DISTILL``, their sum, has the graph."""
    parts: dict[str, Tensor] = {}
    for name, value in result.terms.items():
        parts[f"distill/{name}"] = value.weighted
        parts[f"distill/{name} before its weight"] = value.raw
    parts[DISTILL] = result.total
    return parts
