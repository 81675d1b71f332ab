"""``param_scheduler`` of a config of MMDetection in the words of a recipe: a linear rise, then one way to fall.

mmengine's schedulers say where they begin and end in epochs or steps; a recipe says it in parts of the training, so
that shorter and longer trainings have the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autokd.errors import ConfigError

WARM_UPS = ("LinearLR", "ConstantLR", "QuadraticWarmupLR")
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


@dataclass(frozen=True)
class _Scheduler:
    """One entry of ``param_scheduler``; its place and the path of its config are for errors and notes."""

    settings: Mapping[str, Any]
    place: str
    where: str

    @property
    def name(self) -> str:
        return type_name(self.settings)

    def get(self, key: str, default: Any = None) -> Any:
        return self.settings.get(key, default)

    @property
    def is_by_epoch(self) -> bool:
        return bool(self.get("by_epoch", True))

    @property
    def changes_by_step(self) -> bool:
        return not self.is_by_epoch or bool(self.get("convert_to_iter_based", False))

    def total(self, length: Length) -> int:
        """Return the training's length in this entry's own unit."""
        total = length.epochs if self.is_by_epoch else length.steps
        if not total:
            unit = "epochs, and the training in steps" if self.is_by_epoch else "steps, and the training in epochs"
            raise self.unsayable(f"{self} counts in {unit}, which")
        return total

    def unsayable(self, what: str) -> ConfigError:
        """Return the error for a setting that no recipe can express."""
        return ConfigError(
            f"full.from_student_config: {self.where}: {what} AutoKD's recipes cannot say. Give 'full.schedule' and "
            "what belongs to it in the config file: the config's param_scheduler is then left aside."
        )

    def __str__(self) -> str:
        return f"{self.place} {self.name}"


def read_schedule(schedulers: Any, learning_rate: float, length: Length, where: str) -> Schedule:
    """Translate ``param_scheduler`` into the fields of a recipe.

    Args:
        schedulers: the config's value: one entry, a list of them, or nothing.
        learning_rate: the training's rate, of which ``eta_min`` is a part.
        length: the length of the training.
        where: the config's path, for errors.

    Raises:
        ConfigError: if it describes a schedule that a recipe cannot.
    """
    listed = schedulers if isinstance(schedulers, (list, tuple)) else [schedulers] if schedulers else []
    found = Schedule()
    has_fall = False
    for i, settings in enumerate(listed):
        entry = _Scheduler(settings, f"param_scheduler[{i}]", where)
        if entry.name.endswith("Momentum"):
            found.notes.append(f"{entry}: the momentum stays")
        elif entry.name == "ConstantLR" and entry.get("factor", 1 / 3) == 1:
            continue
        elif entry.name in WARM_UPS and not entry.get("begin", 0) and entry.get("end", _EVER) < _EVER:
            _read_rise(found, entry, length)
        elif entry.name in _FALL_READERS and not has_fall:
            has_fall = True
            _FALL_READERS[entry.name](found, entry, entry.total(length), learning_rate)
        else:
            raise entry.unsayable(f"{entry.place} is a {entry.name} that")
    if found.fields.get("end_factor") and found.fields["warmup_steps"] != 0 and not found.fields["schedule_span"][0]:
        found.notes.append(
            "warm-up and fall overlap: their product takes the place of mmengine's recursion, except for 'eta_min'"
        )
    return found


def type_name(part: Any) -> str:
    """Return the type of what a config describes, as a word without its registry's scope."""
    kind = part.get("type", "") if isinstance(part, Mapping) else part
    return (kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))).rpartition(".")[2]


def _read_rise(found: Schedule, entry: _Scheduler, length: Length) -> None:
    end = entry.settings["end"]
    if entry.name == "LinearLR" and entry.get("end_factor", 1.0) != 1:
        raise entry.unsayable(f"{entry.place} is a LinearLR that ends below the rate, which")
    if entry.is_by_epoch:
        found.fields |= {"warmup_steps": None, "warmup_fraction": min(end / entry.total(length), 1.0)}
        if found.fields["schedule"] == "constant":
            # A recipe's constant schedule rises in steps only; one that falls at no milestone is constant too.
            found.fields |= {"schedule": "multi_step", "milestones": ()}
        if not entry.changes_by_step:
            found.notes.append(f"{entry}: rises by step, not by epoch")
    else:
        found.fields["warmup_steps"] = int(end)
    found.fields["warmup_start"] = float(entry.get("start_factor", entry.get("factor", 1 / 3)))
    if entry.name != "LinearLR":
        found.fields["warmup_start"] *= entry.name == "ConstantLR"
        found.notes.append(f"{entry}: a linear rise of the same length takes its place")


def _read_milestones(found: Schedule, entry: _Scheduler, total: int, rate: float) -> None:
    begin, end = entry.get("begin", 0), min(entry.get("end", _EVER), total)
    size = entry.get("step_size", 1)
    after = entry.settings["milestones"] if entry.name == "MultiStepLR" else range(size, total, size)
    found.fields |= {
        "schedule": "multi_step",
        "milestones": tuple((begin + at) / total for at in sorted(after) if begin + at < end),
        "gamma": float(entry.get("gamma", 0.1)),
    }


def _read_annealing(found: Schedule, entry: _Scheduler, total: int, rate: float) -> None:
    """Read what cosine and polynomial falls share: where they begin and end, and at which part of the rate."""
    begin, end = entry.get("begin", 0), min(entry.get("end", _EVER), total)
    ratio = entry.get("eta_min_ratio")
    least = float(ratio if ratio is not None else (entry.get("eta_min") or 0.0) / rate)
    if least > 1:
        found.notes.append(f"{entry}: eta_min is above the rate {rate:g}, which stays")
    last = min(begin + (entry.get("T_max") or end - begin), total)
    if last != end or begin + (entry.get("T_max") or 0) > total or entry.get("end", _EVER) == _EVER:
        found.notes.append(f"{entry}: it is taken to fall from {begin} to {last} of {total}, and to rest then")
    found.fields |= {
        "schedule": "cosine",
        "schedule_span": (begin / total, last / total),
        "end_factor": min(least, 1.0),
        "changes_by": "step" if entry.changes_by_step else "epoch",
    }


def _read_polynomial(found: Schedule, entry: _Scheduler, total: int, rate: float) -> None:
    _read_annealing(found, entry, total, rate)
    found.fields |= {"schedule": "poly", "power": float(entry.get("power", 1.0))}


_FALL_READERS: dict[str, Callable[[Schedule, _Scheduler, int, float], None]] = {
    "MultiStepLR": _read_milestones,
    "StepLR": _read_milestones,
    "CosineAnnealingLR": _read_annealing,
    "PolyLR": _read_polynomial,
}
