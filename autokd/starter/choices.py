"""From findings to settings, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from autokd.config import DEFAULT_BUDGET, Architecture
from autokd.errors import ConfigError, one_of
from autokd.starter.look import Findings

MAX_SIDE_PX, MIN_SIDE_PX, STEP_PX = 640, 96, 32
"""Bounds and step of the network's input. 32 is the stride of the coarsest level of most backbones."""
SMALLEST_BOX_PX = 8.0
"""Side that the small boxes, at the 10th percentile, should have in the network's input: a cell of the finest level."""
STEPS_OF_FULL = 6_000
"""Steps of a full training, from which epochs follow within ``EPOCHS``."""
EPOCHS = (12, 60)
BATCH_SIZE = 8


@dataclass(frozen=True)
class Setting:
    """A value with the reason for it.

    Args:
        value: plain data.
        reason: one line for the comment beside it.
    """

    value: Any
    reason: str


@dataclass(frozen=True)
class Choices:
    """The settings of a file.

    Args:
        name: name of the study.
        data: section ``data``.
        size: (height, width) of the network's input.
        teacher: section of the teacher.
        student: section of the student.
        epochs: epochs of a full training.
        teacher_epochs: epochs of the teacher's training; None: it has weights.
        seeds: seeds of the full trainings.
        search: section of the search, one key: its budget in full trainings, or its number of trials.
        workers: worker processes.
    """

    name: str
    data: Mapping[str, Any]
    size: Setting
    teacher: Setting
    student: Setting
    epochs: Setting
    teacher_epochs: Setting | None
    seeds: Setting
    search: Mapping[str, Setting]
    workers: Setting


def choose(
    findings: Findings,
    *,
    name: str,
    teacher: str,
    student: str,
    checkpoint: Path | None = None,
    budget: float | None = None,
    trials: int | None = None,
) -> Choices:
    """Return settings for what was found.

    Args:
        findings: data, checkpoints and cards.
        name: name of the study.
        teacher: the teacher, as ``detector_section`` takes it.
        student: the student, likewise.
        checkpoint: the teacher's weights; None: the file trains the teacher.
        budget: cost of the search in full trainings; None: that of a file which says nothing of it.
        trials: trials of proxies in place of a budget.

    Raises:
        ConfigError: if a detector is not known.
    """
    section = detector_section(teacher)
    train_images = findings.splits[0].images
    steps = max(1, math.ceil(train_images / BATCH_SIZE))
    epochs = min(max(round(STEPS_OF_FULL / steps), EPOCHS[0]), EPOCHS[1])
    teacher_epochs = None
    reason = "the big detector"
    if checkpoint is not None:
        section["checkpoint"] = str(checkpoint)
        reason = "the big detector, with its weights"
    elif "weights" not in section:
        teacher_epochs = Setting(2 * epochs, "it has no weights yet: the run trains it first, twice as long")
    cards = len(findings.cards)
    return Choices(
        name=name,
        data={"root": str(findings.root), **findings.data},
        size=_size(findings),
        teacher=Setting(section, reason),
        student=Setting(detector_section(student), "the small detector, which is trained and kept"),
        epochs=Setting(epochs, f"about {epochs * steps:,} steps of {BATCH_SIZE} images"),
        teacher_epochs=teacher_epochs,
        seeds=Setting([0, 1, 2], "a gain is reported with its spread over these"),
        search=_search(budget, trials),
        workers=Setting(cards, f"one a GPU, of which there are {cards}")
        if cards
        else Setting(max(1, findings.cores // 2), f"half of the {findings.cores} processor cores; there is no GPU"),
    )


def detector_section(text: str) -> dict[str, Any]:
    """Return the section of a detector that is named on the command line.

    Args:
        text: ``ARCHITECTURE/BACKBONE`` such as ``fcos/resnet18``; an architecture alone, such as
            ``fasterrcnn_resnet50_fpn``; or the path of a config of MMDetection, ``my_config.py``.

    Raises:
        ConfigError: if there is no such architecture.
    """
    if text.endswith(".py"):
        return {"framework": "mmdet", "config": text}
    architecture, _, backbone = text.partition("/")
    known = _architectures()
    if architecture not in known:
        raise ConfigError(
            one_of(architecture, known, noun="architecture") + " Write ARCHITECTURE/BACKBONE, such as fcos/resnet18, "
            "or the path of a config of MMDetection."
        )
    section: dict[str, Any] = {"architecture": architecture}
    if backbone:
        section["backbone"] = {"name": backbone}
    if architecture == "fcos":
        section["box_init"] = 1  # at torchvision's 0, the first steps may lose a side of all boxes
    return section


def _search(budget: float | None, trials: int | None) -> dict[str, Setting]:
    if trials is not None:
        return {"trials": Setting(trials, "distillers that the search tries, each by a short training")}
    budget = DEFAULT_BUDGET if budget is None else budget
    return {"budget": Setting(budget, "full trainings that the search may cost; 2: its queue alone, 50: a long search")}


def _architectures() -> list[str]:
    """Return the names of all architectures, also of the unions within the type."""
    found: list[str] = []
    for value in get_args(Architecture):
        found += [value] if isinstance(value, str) else [str(name) for name in get_args(value)]
    return found


def _size(findings: Findings) -> Setting:
    """Return the size of the network's input: the images' own shape, large enough for small boxes, at most 640 px."""
    height, width = findings.image_size_px
    longest = max(height, width)
    small = findings.box_side_px[0]
    wanted = longest * SMALLEST_BOX_PX / small if small > 0 else longest
    side = min(MAX_SIDE_PX, max(MIN_SIDE_PX, min(longest, max(wanted, longest / 2))))
    scale = side / longest
    size = [max(MIN_SIDE_PX, math.ceil(value * scale / STEP_PX - 1e-9) * STEP_PX) for value in (height, width)]
    return Setting(size, f"height, width; images have {height} x {width} px, small boxes {small:.0f} px")
