"""A run as its pages read it: trials, results, tree, each looked up again only if it has changed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autokd.errors import AutoKDError, StorageError
from autokd.report import ReportData, TrialReader, TrialView, gather
from autokd.report.icicle import icicle_data
from autokd.storage import Race, Results, RunProgress, StudyFacts, TrialRecord, open_existing

MAX_READERS = 32
"""Number of runs that are kept open."""


class RunReader:
    """Reader of one run; its methods may be called from several threads.

    Args:
        folder: run directory.
        address: address of the study's database; None: study.db in the folder.
        name: name of the study in a database of several; None: the only one.
    """

    def __init__(self, folder: Path, address: str | None = None, name: str | None = None) -> None:
        self.folder = folder
        self._address = address
        self._name = name
        self._lock = threading.RLock()
        self._reader: TrialReader | None = None
        self._facts: StudyFacts | None = None
        self._study: Any = None
        self._results: tuple[float, Results] | None = None
        self._tree: tuple[int, list[dict[str, Any]]] | None = None
        self._drawn: tuple[tuple[int, float], ReportData] | None = None

    def trials(self) -> tuple[TrialView, ...]:
        """Return all trials; none before the study exists."""
        with self._lock:
            self._open()
            return () if self._reader is None else self._reader.read()

    def changed_since(self, version: int) -> tuple[int, list[TrialView]]:
        """Return the present version, and the trials that changed after another.

        Args:
            version: an earlier version; 0: all trials.
        """
        with self._lock:
            self.trials()
            return (0, []) if self._reader is None else (self._reader.version, self._reader.changed_since(version))

    def record(self, number: int) -> TrialRecord | None:
        """Return what is stored on a trial, as the last call of ``trials`` found it; None: there is no such trial.

        Args:
            number: number of the trial.
        """
        with self._lock:
            return None if self._reader is None else self._reader.record(number)

    def tree(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the version of the trials, and the nodes of their tree."""
        with self._lock:
            trials = self.trials()
            version = 0 if self._reader is None else self._reader.version
            if self._tree is None or self._tree[0] != version:
                self._tree = (version, icicle_data(trials))
            return self._tree

    def results(self) -> Results | None:
        """Return the results; None: there are none yet."""
        path = self.folder / "results.json"
        with self._lock:
            try:
                at = path.stat().st_mtime
                if self._results is None or self._results[0] != at:
                    self._results = (at, Results.read(path))
            except (OSError, StorageError):
                return None
            return self._results[1]

    def progress(self) -> RunProgress | None:
        """Return how far the run is; None: it says nothing about it."""
        return RunProgress.read(self.folder)

    def race(self) -> Race | None:
        """Return the race of the finalists; None before it has ended."""
        results = self.results()
        if results is not None and results.race is not None:
            return results.race
        with self._lock:
            self._open()
            return None if self._facts is None else self._facts.race

    def report_data(self) -> ReportData:
        """Return what the run's report shows.

        Raises:
            StorageError: if there is no study yet.
        """
        with self._lock:
            self.trials()
            if self._study is None or self._reader is None:
                raise StorageError("the search has not begun: there is no study yet.")
            results = self.results()
            key = (self._reader.version, 0.0 if self._results is None else self._results[0])
            if self._drawn is None or self._drawn[0] != key:
                self._drawn = (key, gather(self.folder, self._study, results))
            return self._drawn[1]

    def others_like(self, trial: TrialView, count: int = 8) -> list[tuple[int, TrialView]]:
        """Return the trials whose decisions differ least from a trial's, with the number of differing decisions.

        Args:
            trial: the trial.
            count: number of relatives.
        """
        path = dict(trial.path)
        found: dict[str, tuple[int, float, TrialView]] = {}
        for other in self.trials():
            if other.number == trial.number or other.digest == trial.digest or not other.path:
                continue
            theirs = dict(other.path)
            distance = sum(path.get(key) != theirs.get(key) for key in path.keys() | theirs.keys())
            rank = (distance, -(other.value if other.has_value and other.value is not None else -1e9), other)
            if other.digest not in found or rank[:2] < found[other.digest][:2]:
                found[other.digest] = rank
        ranked = sorted(found.values(), key=lambda each: each[:2])[:count]
        return [(distance, other) for distance, _, other in ranked]

    def _open(self) -> None:
        if self._reader is not None:
            return
        try:
            self._study = open_existing(self._address or self.folder, self._name)
        except AutoKDError:
            return  # the search has not made it yet
        self._reader = TrialReader(self._study)
        self._facts = StudyFacts(self._study)


class Readers:
    """The readers of the runs that were looked at last."""

    def __init__(self) -> None:
        self._readers: OrderedDict[tuple[str, str | None], RunReader] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, folder: Path, address: str | None = None, name: str | None = None) -> RunReader:
        """Return the reader of a run.

        Args:
            folder: run directory.
            address: address of the study's database; None: study.db in the folder.
            name: name of the study; None: the only one.
        """
        key = (str(folder), address)
        with self._lock:
            if key not in self._readers:
                self._readers[key] = RunReader(folder, address, name)
            self._readers.move_to_end(key)
            while len(self._readers) > MAX_READERS:
                self._readers.popitem(last=False)
            return self._readers[key]


def trial_rows(trials: Sequence[TrialView]) -> list[list[Any]]:
    """Return trials as short rows: number, state, value, seconds, preset, cause, formula, curve.

    Args:
        trials: trials.
    """
    return [
        [
            trial.number, trial.status, _short(trial.value), round(trial.seconds, 1), trial.preset,
            trial.cause or ("reused" if trial.reused_from is not None else ""), trial.formula,
            [[epoch, _short(value)] for epoch, value in trial.curve],
        ]
        for trial in trials
    ]  # fmt: skip


def _short(value: float | None) -> float | None:
    import math

    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
