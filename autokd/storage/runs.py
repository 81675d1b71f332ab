"""Run directories of a folder: state, trials, best reward, winner, age. Nothing is locked or written."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from autokd.errors import StorageError
from autokd.storage.results import Results
from autokd.storage.run_directory import RunDirectory, is_in_use

RunState = Literal["finished", "running", "interrupted"]


@dataclass(frozen=True)
class RunInfo:
    """A run directory at a glance.

    Args:
        path: the folder.
        state: "finished" if it has results, "running" if a process works on it, else "interrupted".
        num_trials: trials that have ended with a value or were pruned; None: the study is in another database.
        best_reward: best reward of a trial; None: there is none.
        winner: name of the entry that won; empty before the end.
        test_ap: its mean test AP.
        age_s: seconds since the run last wrote.
    """

    path: Path
    state: RunState
    num_trials: int | None
    best_reward: float | None
    winner: str
    test_ap: float | None
    age_s: float

    def to_data(self) -> dict[str, Any]:
        """Return the fields by name, as JSON has them."""
        return asdict(self) | {"path": str(self.path)}


def list_runs(folder: Path) -> list[RunInfo]:
    """Return the runs below a folder, or the folder's own, the latest first.

    Args:
        folder: a run directory, or a folder of them.

    Raises:
        StorageError: if there is no such folder.
    """
    if not folder.is_dir():
        raise StorageError(f"{folder}: there is no such folder. Name the folder that holds run directories.")
    candidates = [folder, *sorted(folder.iterdir())]
    found = [_info(RunDirectory(path), path) for path in candidates if (path / "config.yaml").is_file()]
    return sorted(found, key=lambda run: run.age_s)


def _info(run: RunDirectory, path: Path) -> RunInfo:
    winner, test_ap = _winner(run)
    is_done = run.results_path.is_file()
    state: RunState = "running" if is_in_use(run.path) else "finished" if is_done else "interrupted"
    num_trials, best_reward = _counts(run.study_path)
    written = [file.stat().st_mtime for file in (run.config_path, run.study_path, run.results_path) if file.exists()]
    return RunInfo(path, state, num_trials, best_reward, winner, test_ap, time.time() - max(written))


def _winner(run: RunDirectory) -> tuple[str, float | None]:
    try:
        results = Results.read(run.results_path)
        known = [value for value in results.entry(results.winner).test_ap if value is not None]
    except (StorageError, KeyError):
        return "", None
    return results.winner, sum(known) / len(known) if known else None


def _counts(study: Path) -> tuple[int | None, float | None]:
    """Return ended trials and the best value, read from SQLite alone: Optuna would take a second a run."""
    if not study.is_file():
        return None, None
    try:
        # Read-only, so that a run that is being written is not disturbed.
        with sqlite3.connect(f"{study.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0) as database:
            (ended,) = database.execute("SELECT COUNT(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')").fetchone()
            (best,) = database.execute(
                "SELECT MAX(value) FROM trial_values JOIN trials USING (trial_id) WHERE state = 'COMPLETE'"
            ).fetchone()
    except sqlite3.Error:
        return None, None
    return int(ended), None if best is None else float(best)
