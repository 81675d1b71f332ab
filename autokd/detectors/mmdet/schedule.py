"""``param_scheduler`` of a config of MMDetection in the words of a recipe: a linear rise, then one way to fall.

mmengine's schedulers say where they begin and end in epochs or steps; a recipe says it in parts of the training, so
that shorter and longer trainings have the same shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autokd.errors import ConfigError

WARM_UPS = ("LinearLR", "ConstantLR", "QuadraticWarmupLR")
FALLS = ("MultiStepLR", "StepLR", "CosineAnnealingLR", "PolyLR")
_EVER = 10**9
"""mmengine's INF: a scheduler without an end."""


@dataclass
class Schedule:
    """Fields of a recipe, and sentences on what they hold only nearly, or not at all."""

    fields: dict[str, Any] = field(default_factory=lambda: {"schedule": "constant", "warmup_steps": 0})
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Length:
    """Length of the config's training in epochs, or in steps if it counts in these. 0: not stated."""

    epochs: int = 0
    steps: int = 0


def read_schedule(schedulers: Any, learning_rate: float, length: Length, where: str) -> Schedule:
    """Translate ``param_scheduler``; learning_rate: the training's, of which ``eta_min`` is a part.

    ConfigError for what a recipe cannot say.
    """
    listed = schedulers if isinstance(schedulers, (list, tuple)) else [schedulers] if schedulers else []
    found = Schedule()
    falls = 0
    for i, scheduler in enumerate(listed):
        name = type_name(scheduler)
        place = f"param_scheduler[{i}]"
        if name.endswith("Momentum"):
            found.notes.append(f"{place} {name}: the momentum stays")
        elif name == "ConstantLR" and scheduler.get("factor", 1 / 3) == 1:
            continue
        elif name in WARM_UPS and not scheduler.get("begin", 0) and scheduler.get("end", _EVER) < _EVER:
            _read_rise(found, scheduler, name, length, place, where)
        elif name in FALLS and not falls:
            falls += 1
            _read_fall(found, scheduler, name, learning_rate, length, place, where)
        else:
            raise _unsaid(f"{place} is a {name} that", where)
    if found.fields.get("end_factor") and found.fields["warmup_steps"] != 0 and not found.fields["schedule_span"][0]:
        found.notes.append(
            "warm-up and fall overlap: their product takes the place of mmengine's recursion, except for 'eta_min'"
        )
    return found


def type_name(part: Any) -> str:
    """The type of what a config describes, as a word without its registry's scope."""
    kind = part.get("type", "") if isinstance(part, Mapping) else part
    return (kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))).rpartition(".")[2]


def _unsaid(what: str, where: str) -> ConfigError:
    return ConfigError(
        f"full.from_student_config: {where}: {what} AutoKD's recipes cannot say. Give 'full.schedule' and what "
        "belongs to it in the space file: the config's param_scheduler is then left aside."
    )


def _read_rise(
    found: Schedule, scheduler: Mapping[str, Any], name: str, length: Length, place: str, where: str
) -> None:
    end, by_epoch = scheduler["end"], scheduler.get("by_epoch", True)
    if name == "LinearLR" and scheduler.get("end_factor", 1.0) != 1:
        raise _unsaid(f"{place} is a LinearLR that ends below the rate, which", where)
    if by_epoch:
        if not length.epochs:
            raise _unsaid(f"{place} {name} counts in epochs, and the training in steps, which", where)
        found.fields |= {"warmup_steps": None, "warmup_fraction": min(end / length.epochs, 1.0)}
        if found.fields["schedule"] == "constant":  # which rises in steps only
            found.fields |= {"schedule": "multi_step", "milestones": ()}
        if not scheduler.get("convert_to_iter_based", False):
            found.notes.append(f"{place} {name}: rises by step, not by epoch")
    else:
        found.fields["warmup_steps"] = int(end)
    found.fields["warmup_start"] = float(scheduler.get("start_factor", scheduler.get("factor", 1 / 3)))
    if name != "LinearLR":
        found.fields["warmup_start"] *= name == "ConstantLR"
        found.notes.append(f"{place} {name}: a linear rise of the same length takes its place")


def _read_fall(
    found: Schedule, scheduler: Mapping[str, Any], name: str, rate: float, length: Length, place: str, where: str
) -> None:
    by_epoch = scheduler.get("by_epoch", True)
    total = length.epochs if by_epoch else length.steps
    if not total:
        unit = "epochs, and the training in steps" if by_epoch else "steps, and the training in epochs"
        raise _unsaid(f"{place} {name} counts in {unit}, which", where)
    begin, end = scheduler.get("begin", 0), min(scheduler.get("end", _EVER), total)
    if name in ("MultiStepLR", "StepLR"):
        size = scheduler.get("step_size", 1)
        after = scheduler["milestones"] if name == "MultiStepLR" else range(size, total, size)
        found.fields |= {
            "schedule": "multi_step",
            "milestones": tuple((begin + at) / total for at in sorted(after) if begin + at < end),
            "gamma": float(scheduler.get("gamma", 0.1)),
        }
        return
    ratio = scheduler.get("eta_min_ratio")
    least = float(ratio if ratio is not None else (scheduler.get("eta_min") or 0.0) / rate)
    if least > 1:
        found.notes.append(f"{place} {name}: eta_min is above the rate {rate:g}, which stays")
    last = min(begin + (scheduler.get("T_max") or end - begin), total)
    if last != end or begin + (scheduler.get("T_max") or 0) > total or scheduler.get("end", _EVER) == _EVER:
        found.notes.append(f"{place} {name}: it is taken to fall from {begin} to {last} of {total}, and to rest then")
    found.fields |= {
        "schedule": "poly" if name == "PolyLR" else "cosine",
        "schedule_span": (begin / total, last / total),
        "end_factor": min(least, 1.0),
        "changes_by": "step" if not by_epoch or scheduler.get("convert_to_iter_based", False) else "epoch",
    }
    if name == "PolyLR":
        found.fields["power"] = float(scheduler.get("power", 1.0))
