"""Runs side by side: results, search curves, and the settings that differ."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autokd.errors import AutoKDError, StorageError
from autokd.jobs import NO_DISTILLATION
from autokd.report.statistics import gain, summarize
from autokd.report.tables import ABSENT, interval, spread
from autokd.report.view import EntryView
from autokd.storage import Results, RunDirectory, open_existing

_OF_THE_PLACE = ("name", "runtime")
"""Sections in which runs may differ without a difference in what was trained."""


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison.

    Args:
        name: its folder.
        results: its results; None: it has not ended.
        entries: rows of the results.
        best_so_far: best reward after each trial that ended with one.
        config: resolved configuration.
    """

    name: str
    results: Results | None
    entries: Mapping[str, EntryView]
    best_so_far: tuple[float, ...]
    config: Mapping[str, Any]

    @property
    def winner(self) -> EntryView | None:
        """The entry that won; None before the end."""
        return None if self.results is None else self.entries.get(self.results.winner)


@dataclass(frozen=True)
class RunComparison:
    """Several runs.

    Args:
        runs: the runs in the order in which they were named.
        settings: setting -> its value in each run, for those that differ.
    """

    runs: tuple[ComparedRun, ...]
    settings: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the runs."""
        return tuple(run.name for run in self.runs)

    def rows(self) -> Iterator[tuple[str, list[str]]]:
        """Yield label and cells of each row of the table."""
        yield "trials", [str(len(run.best_so_far)) for run in self.runs]
        yield "best reward", [f"{run.best_so_far[-1]:+.3f}" if run.best_so_far else ABSENT for run in self.runs]
        yield "winner", [run.winner.name if run.winner else ABSENT for run in self.runs]
        yield "formula", [_formula(run) for run in self.runs]
        yield "teacher, test AP", [_number(run.results.teacher.test_ap if run.results else None) for run in self.runs]
        for name in dict.fromkeys(name for run in self.runs for name in run.entries):
            entries = [run.entries.get(name) for run in self.runs]
            yield f"{name}, test AP", [spread(entry.test_ap) if entry else ABSENT for entry in entries]
        yield "winner's gain", [_gain(run)[0] for run in self.runs]
        yield "95% interval", [_gain(run)[1] for run in self.runs]
        yield "search, s", [f"{run.results.search.seconds:.0f}" if run.results else ABSENT for run in self.runs]

    def to_data(self) -> dict[str, Any]:
        """Return the comparison as plain data."""
        return {
            "runs": list(self.names),
            "rows": dict(self.rows()),
            "settings": {key: list(values) for key, values in self.settings.items()},
        }


def compare_runs(directories: Sequence[Path]) -> RunComparison:
    """Return runs side by side.

    Args:
        directories: run directories, two or more.

    Raises:
        StorageError: if one is no run directory.
    """
    from autokd.report.gather import entries_of

    runs = []
    for directory in directories:
        run = RunDirectory.existing(directory)
        results = Results.read(run.results_path) if run.results_path.exists() else None
        entries = {entry.name: entry for entry in entries_of(results)} if results else {}
        runs.append(ComparedRun(str(directory), results, entries, _best_so_far(run), run.read_config()))
    return RunComparison(tuple(runs), _differences([run.config for run in runs]))


def _best_so_far(run: RunDirectory) -> tuple[float, ...]:
    try:
        study = open_existing(run.study_path)
    except (StorageError, AutoKDError):
        return ()  # the study is in another database
    values: list[float] = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "COMPLETE" and trial.value is not None:
            values.append(max(trial.value, values[-1] if values else -math.inf))
    return tuple(values)


def _differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    flat = [_flat({key: value for key, value in config.items() if key not in _OF_THE_PLACE}) for config in configs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = {key: tuple(one.get(key, ABSENT) for one in flat) for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _flat(data: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(data, Mapping) and data:
        pairs = ((f"{prefix}.{key}" if prefix else str(key), value) for key, value in data.items())
        return {name: text for key, value in pairs for name, text in _flat(value, key).items()}
    return {prefix: data if isinstance(data, str) else json.dumps(data, default=str)}


def _formula(run: ComparedRun) -> str:
    if run.results is None or run.winner is None:
        return ABSENT
    return run.results.entry(run.results.winner).formula or NO_DISTILLATION


def _gain(run: ComparedRun) -> tuple[str, str]:
    base = run.entries.get(NO_DISTILLATION)
    if run.winner is None or base is None or run.winner is base:
        return ABSENT, ABSENT
    found = gain(run.winner, base)
    return (ABSENT if found is None else f"{found.mean:+.4f}"), interval(found)


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4f}"


def mean_of(entry: EntryView) -> float | None:
    """Return an entry's mean test AP; None if no training finished.

    Args:
        entry: the entry.
    """
    found = summarize(entry.test_ap)
    return None if found is None else found.mean
