"""Values of a report, frozen: nothing to look up, no torch.

``gather`` fills these from a run. What results.json holds in the form that a report needs is taken as it is (``Race``,
``ProxyFidelity``, ``TeacherResult``); the classes here are for what it holds in another form. Figures, tables and pages
read nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from autokd.jobs import SEARCHED
from autokd.report.pictures import ComparisonImage
from autokd.storage import ProxyFidelity, Race, TeacherResult

TrialStatus = Literal["finished", "pruned", "failed", "running"]


@dataclass(frozen=True, slots=True)
class TrialView:
    """A trial of the search.

    Args:
        number: number of the trial in its study.
        status: state of the trial.
        value: reward; of a pruned trial the last that was reported; None if there is none.
        path: categorical decisions (question, answer) in the order in which they were taken.
        formula: distiller as one line.
        digest: digest of what the student learns from.
        preset: name of the preset that the trial was enqueued with; empty: the sampler suggested it.
        reused_from: number of the trial whose outcome it took over; None: it was trained.
        cause: cause of the failure; empty if it did not fail.
        message: message of the failure.
        metrics: metrics of the last epoch, the finite ones.
        curve: (epoch, reward) for each report.
        seconds: duration of the training.
        inactive_terms: terms of which no gradient could be measured.
        is_inactive: whether these are all its terms.
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
    inactive_terms: tuple[str, ...] = ()
    is_inactive: bool = False

    @property
    def has_value(self) -> bool:
        """Whether the trial finished with a finite value and an active term, so that it may count as the best."""
        return (
            self.status == "finished" and not self.is_inactive and self.value is not None and math.isfinite(self.value)
        )


@dataclass(frozen=True, slots=True)
class EntryView:
    """A row of the results: a distiller, or none, trained in full with several seeds. Unknown numbers are NaN.

    Args:
        name: "none", a preset's name, "searched", or the name of a given distiller.
        seeds: training seeds; the columns below have one number for each.
        val_ap: COCO AP on val in [0, 1].
        test_ap: COCO AP on test in [0, 1], or on val if there is no test split.
        train_seconds: duration of the training in seconds.
        digest: digest of what the student learned from; empty: no distillation.
        formula_lines: distiller as lines of a formula.
        yaml: distiller as YAML text.
        per_class: test AP by class name; a class without ground truth has NaN.
        per_size: test AP of small, medium and large objects by name, those that occur.
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
    per_size: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FidelityPoint:
    """A distiller that was trained both ways.

    Args:
        name: name of its entry.
        proxy_value: reward of its trial.
        full_val_ap: mean AP on val of its full trainings.
    """

    name: str
    proxy_value: float
    full_val_ap: float


@dataclass(frozen=True, slots=True)
class SearchView:
    """Counts of a search.

    Args:
        sampler: name of the sampler.
        finished: number of trials that finished.
        failed: number of trials that failed, interrupted ones left out.
        pruned: number of trials that were pruned.
        reused: number of trials that took over the outcome of an equal one.
        seconds: wall time of the run.
        cost: what a search with a budget cost, and what a full training bought, as a sentence; empty for others.
        direction: whether a greater value is better.
        value_meaning: word for the value of a trial.
        none_value: value of the training without distillation; None: the value is no difference to it.
    """

    sampler: str = ""
    finished: int = 0
    failed: int = 0
    pruned: int = 0
    reused: int = 0
    seconds: float = 0.0
    cost: str = ""
    direction: Literal["maximize", "minimize"] = "maximize"
    value_meaning: str = "reward"
    none_value: float | None = None


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report shows.

    Args:
        name: name of the run.
        search: counts of the search.
        trials: trials in order.
        entries: rows of the results.
        winner: name of the winning entry; empty: none was chosen.
        teacher: AP of the teacher.
        teacher_per_class: the teacher's test AP by class name.
        teacher_per_size: the teacher's test AP by size of objects.
        race: race of the finalists; None before it, or without a search.
        proxy_fidelity: rank correlation of proxy and full trainings.
        fidelity: points of that correlation, and "none".
        images: test images with everybody's boxes.
        score_threshold: least score of a detection that is drawn.
        judged_on: split of ``EntryView.test_ap``.
        config_yaml: resolved configuration as YAML text.
        environment: versions, device and the like, by name.
        notes: remarks for the reader, as in results.json.
    """

    name: str
    search: SearchView = SearchView()
    trials: tuple[TrialView, ...] = ()
    entries: tuple[EntryView, ...] = ()
    winner: str = ""
    teacher: TeacherResult = field(default_factory=TeacherResult)
    teacher_per_class: Mapping[str, float] = field(default_factory=dict)
    teacher_per_size: Mapping[str, float] = field(default_factory=dict)
    race: Race | None = None
    proxy_fidelity: ProxyFidelity = field(default_factory=ProxyFidelity)
    fidelity: tuple[FidelityPoint, ...] = ()
    images: tuple[ComparisonImage, ...] = ()
    score_threshold: float = 0.3
    judged_on: Literal["test", "val"] = "test"
    config_yaml: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def entry(self, name: str) -> EntryView | None:
        """Return the row of a name, or None.

        Args:
            name: name of the entry.
        """
        return next((entry for entry in self.entries if entry.name == name), None)

    @property
    def winning_entry(self) -> EntryView | None:
        """The row that won on val; the searched one if none was chosen."""
        return self.entry(self.winner) or self.entry(SEARCHED)


def best_trial(trials: Sequence[TrialView], direction: str = "maximize") -> TrialView | None:
    """Return the finished trial with the best value, the first of equals, or None if none finished.

    Args:
        trials: trials of a search.
        direction: "maximize", or "minimize" if a less value is better.
    """
    sign = -1.0 if direction == "minimize" else 1.0
    valued = [trial for trial in trials if trial.has_value]
    return max(valued, key=lambda trial: (sign * _value(trial), -trial.number), default=None)


def _value(trial: TrialView) -> float:
    assert trial.value is not None, "only trials with a value are compared"
    return trial.value
