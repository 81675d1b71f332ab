"""The costs that a forecast multiplies: seconds of a step, of a teacher's view, of a measurement; bytes of a view.

Plain numbers. ``measure.py`` finds them; a forecast needs neither a data set nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autokd.jobs import RecipeName
from autokd.training.cost.speed import StepCost


@dataclass(frozen=True)
class RecipeCosts:
    """What trainings by one recipe cost.

    Attributes:
        none: steps without distillation.
        distilled: steps with a distiller: the mean over those that were measured.
        val_image_s: measuring one validation image as this recipe's trainings do.
        test_image_s: finding the detections of one test image; 0 where they are not looked at.
        start_s: building the student and the distiller of a job.
        by_distiller: steps with each distiller that was measured, by name.
    """

    none: StepCost
    distilled: StepCost
    val_image_s: float
    test_image_s: float
    start_s: float
    by_distiller: Mapping[str, StepCost] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasuredCosts:
    """What the trainings of a run cost on one machine.

    Attributes:
        device: "cpu" or "cuda".
        device_name: name of the card, or of the processor's architecture.
        threads: torch's threads.
        recipes: costs of proxies and full trainings.
        teacher_steps: a step of each teacher that the run trains, by its position.
        teacher_image_s: (teacher's position, image size) -> seconds of one view: load, forward, write.
        measure_image_s: seconds in which one image of val or test is measured for one teacher's AP.
        bytes_per_view: (teacher's position, image size, taps) -> bytes of one view's outputs.
        stored_bytes: bytes of the outputs that the cache folder holds already.
        memory_bytes: greatest memory of a worker: of the card, or of the process on a CPU.
        total_memory_bytes: memory of the card, or of the machine.
        seconds: time that the measurement took.
    """

    device: str
    device_name: str
    threads: int
    recipes: Mapping[RecipeName, RecipeCosts]
    teacher_steps: Mapping[int, StepCost]
    teacher_image_s: Mapping[tuple[int, tuple[int, int]], float]
    measure_image_s: float
    bytes_per_view: Mapping[tuple[int, tuple[int, int], tuple[str, ...]], int]
    stored_bytes: int
    memory_bytes: int
    total_memory_bytes: int
    seconds: float
