"""What a run's database holds, read by SQLite's own module, and what must hold of it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Memory:
    """Content of a study.

    Attributes:
        trials: number -> state, value, parameters and attributes of each trial.
        facts: attributes of the study.
    """

    trials: dict[int, dict[str, Any]]
    facts: dict[str, Any]

    def finished(self) -> dict[str, Any]:
        """Return the outcome of each training that has ended well, by trial or job."""
        found = {f"trial {number}": trial["outcome"] for number, trial in self.trials.items()}
        found |= {name: fact for name, fact in self.facts.items() if name.startswith("autokd:outcome:")}
        return {name: outcome for name, outcome in found.items() if outcome and outcome["status"] == "finished"}

    def comparable(self) -> dict[int, Any]:
        """Return of each trial what must equal that of an undisturbed search."""
        return {
            number: (trial["state"], trial["value"], trial["params"], _plain(trial["outcome"]))
            for number, trial in self.trials.items()
        }


def read_memory(run: Path) -> Memory:
    """Return what the database of a run holds; nothing if it has none yet.

    Args:
        run: run directory.
    """
    with tempfile.TemporaryDirectory() as folder:
        # A copy: reading would else write the log of a killed process back, before AutoKD does.
        for name in ("study.db", "study.db-wal"):
            if (run / name).exists():
                shutil.copyfile(run / name, Path(folder) / name)
        if not (Path(folder) / "study.db").exists():
            return Memory({}, {})
        connection = sqlite3.connect(Path(folder) / "study.db")
        try:
            return _read(connection)
        except sqlite3.OperationalError:  # killed before its tables were made
            return Memory({}, {})
        finally:
            connection.close()


def _read(connection: sqlite3.Connection) -> Memory:
    trials: dict[int, dict[str, Any]] = {}
    by_id: dict[int, dict[str, Any]] = {}
    for identity, number, state in connection.execute("SELECT trial_id, number, state FROM trials ORDER BY number"):
        by_id[identity] = trials[number] = {"state": state, "value": None, "params": {}, "outcome": None}
    for identity, value in connection.execute("SELECT trial_id, value FROM trial_values"):
        by_id[identity]["value"] = value
    for identity, name, value in connection.execute("SELECT trial_id, param_name, param_value FROM trial_params"):
        by_id[identity]["params"][name] = value
    for identity, name, value in connection.execute("SELECT trial_id, key, value_json FROM trial_user_attributes"):
        if name == "autokd:outcome":
            by_id[identity]["outcome"] = json.loads(value)
    facts = connection.execute("SELECT key, value_json FROM study_user_attributes")
    return Memory(trials, {name: json.loads(value) for name, value in facts})


def _plain(outcome: dict[str, Any] | None) -> Any:
    if outcome is None:
        return None
    metrics = {name: value for name, value in outcome["metrics"].items() if "seconds" not in name}
    return outcome["status"], outcome["cause"], metrics


def comparable_results(run: Path) -> dict[str, Any]:
    """Return results.json without what no two runs share: durations.

    Args:
        run: run directory.
    """
    data: dict[str, Any] = json.loads((run / "results.json").read_text())
    data["search"].pop("seconds")
    for entry in data["entries"]:
        entry.pop("train_seconds")
        for name in [name for name in entry["metrics"] if "seconds" in name]:
            del entry["metrics"][name]
    return data
