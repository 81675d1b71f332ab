"""What a report shows, as plain frozen values: no storage, no torch, nothing to look up.

``gather`` fills these from a run; the figures, tables and pages read nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from autokd.outcomes import SEARCHED
from autokd.report.pictures import ComparisonImage

TrialStatus = Literal["finished", "pruned", "failed", "running"]


@dataclass(frozen=True, slots=True)
class TrialView:
    """One trial of the search.

    ``path`` holds its categorical decisions (question, answer) in the order in which they were taken;
    ``preset`` is the name of an enqueued preset, ``reused_from`` the trial whose value was taken over.
    """

    number: int
    status: TrialStatus
    value: float | None = None
    path: tuple[tuple[str, str], ...] = ()
    formula: str = ""
    digest: str = ""
    preset: str = ""
    reused_from: int | None = None
    cause: str = ""
    message: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0

    @property
    def has_value(self) -> bool:
        """A finished trial with a finite value: the only kind that may count as best."""
        return self.status == "finished" and self.value is not None and math.isfinite(self.value)


@dataclass(frozen=True, slots=True)
class EntryView:
    """One row of the results: a distiller (or none) trained in full with several seeds. APs are COCO AP in [0, 1].

    ``per_class`` maps a class to its test AP for each seed; a class without ground truth has NaN.
    """

    name: str
    seeds: tuple[int, ...]
    val_ap: tuple[float, ...]
    test_ap: tuple[float, ...]
    train_seconds: tuple[float, ...] = ()
    digest: str = ""
    formula_lines: tuple[str, ...] = ()
    yaml: str = ""
    per_class: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FidelityPoint:
    """One distiller judged both ways: the proxy's value and the full training's mean val AP."""

    name: str
    proxy_value: float
    full_val_ap: float


@dataclass(frozen=True, slots=True)
class FinalistView:
    """One of the best few trials: its reward with each seed (that of its trial first), and what is to be expected."""

    digest: str
    formula: str = ""
    seeds: tuple[int, ...] = ()
    rewards: tuple[float, ...] = ()
    mean: float | None = None
    expected: float | None = None
    deviation: float | None = None
    fell_in: int | None = None
    """Number of the round after which it was out; None: it stood to the end."""
    reason: str = ""
    full_val_ap: float | None = None
    """Of one full training; None where there was none."""


@dataclass(frozen=True, slots=True)
class RoundView:
    """One round of the finalists' race; ``leader``, ``entered`` and ``fell`` are digests."""

    seed: int
    leader: str = ""
    entered: tuple[str, ...] = ()
    fell: tuple[str, ...] = ()
    noise: float | None = None
    freedom: int = 0


@dataclass(frozen=True, slots=True)
class RaceView:
    """The finalists, the winner first, and how they raced."""

    finalists: tuple[FinalistView, ...] = ()
    rounds: tuple[RoundView, ...] = ()
    verdict: str = ""
    trainings: int = 0
    prior_mean: float | None = None
    between: float | None = None


@dataclass(frozen=True, slots=True)
class SearchView:
    """The search in numbers. ``direction`` says whether a greater value is better."""

    sampler: str = ""
    finished: int = 0
    failed: int = 0
    pruned: int = 0
    reused: int = 0
    seconds: float = 0.0
    direction: Literal["maximize", "minimize"] = "maximize"
    value_meaning: str = "reward"
    none_value: float | None = None
    """The value of training without distillation, where the reward is measured against it."""


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that the page shows. ``judged_on`` names the split of ``EntryView.test_ap``."""

    name: str
    search: SearchView = SearchView()
    trials: tuple[TrialView, ...] = ()
    entries: tuple[EntryView, ...] = ()
    winner: str = ""
    teacher_val_ap: float | None = None
    teacher_test_ap: float | None = None
    teacher_per_class: Mapping[str, float] = field(default_factory=dict)
    race: RaceView | None = None
    kendall_tau: float | None = None
    tau_interval: tuple[float, float] | None = None
    fidelity_pairs: int = 0
    """How many distillers were judged both ways."""
    fidelity_note: str = ""
    """How far that can be trusted, or why no tau is given."""
    fidelity: tuple[FidelityPoint, ...] = ()
    images: tuple[ComparisonImage, ...] = ()
    score_threshold: float = 0.3
    judged_on: Literal["test", "val"] = "test"
    config_yaml: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What a reader must know, in the run's own words."""

    def entry(self, name: str) -> EntryView | None:
        """Return the row ``name``, or None."""
        return next((entry for entry in self.entries if entry.name == name), None)

    @property
    def winning_entry(self) -> EntryView | None:
        """The row that the run chose (on val), or the searched one where nothing was chosen."""
        return self.entry(self.winner) or self.entry(SEARCHED)


def best_trial(trials: Sequence[TrialView], direction: str = "maximize") -> TrialView | None:
    """Return the finished trial with the best value, the first of equals; None where there is none."""
    sign = -1.0 if direction == "minimize" else 1.0
    valued = [trial for trial in trials if trial.has_value]
    return max(valued, key=lambda trial: (sign * _value(trial), -trial.number), default=None)


def _value(trial: TrialView) -> float:
    assert trial.value is not None, "only trials with a value are compared"
    return trial.value
