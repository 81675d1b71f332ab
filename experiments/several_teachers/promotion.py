"""Compares the search with a promoted student with its twin without: promotion.json and its table in README.md.

    python experiments/several_teachers/promotion.py

Run it at the repository's root after both searches. It also measures the promoted student's AP.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from autokd.benchmark.markdown import gain_text, markdown_table, paired_gain, write_table
from autokd.config import load_config
from autokd.data import load_datasets
from autokd.storage import StudyFacts, open_existing, read_record
from autokd.training import PROMOTED_FOLDER
from autokd.training.assets import TrainingAssets
from autokd.training.teacher.obtain import measure_teacher

HERE = Path(__file__).parent
PROMOTE_AFTER = 12
SEARCHES = ("without", "promoted")


def main(scratch: Path, cache: Path) -> None:
    found = {name: _read(scratch / name) for name in SEARCHES}
    found["promoted"]["student"] |= _precision(scratch / "promoted", found["promoted"]["student"]["digest"], cache)
    (HERE / "promotion.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table = _table(found)
    write_table(HERE / "README.md", "promotion", table)
    print("\n".join(table), json.dumps(found["promoted"]["student"], indent=1), sep="\n")


def _read(run: Path) -> dict[str, Any]:
    study = open_existing(run)
    records = [read_record(trial) for trial in study.trials]
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    trials = [
        {
            "number": record.number,
            "value": record.value,
            "formula": record.formula,
            "with_promoted": bool(record.promoted),
            "shares": [
                round(value, 4)
                for name, value in sorted(record.outcome.metrics.items())
                if name.startswith("teacher_share_")
            ],
        }
        for record in records
        if record.outcome is not None and record.reused_from is None
    ]
    entries = [
        {
            "name": entry["name"],
            "formula": entry["formula"],
            "with_promoted": "+" in entry["digest"],
            "proxy_reward": entry["proxy_reward"],
            **{key: entry[key] for key in ("seeds", "val_ap", "test_ap")},
        }
        for entry in results["entries"]
    ]
    facts = StudyFacts(study)
    return {
        "scales": facts.reward_scales,
        "race": None if facts.race is None else facts.race.model_dump(mode="json"),
        "student": {} if facts.promoted is None else asdict(facts.promoted),
        "trials": trials,
        "entries": entries,
    }


def _precision(run: Path, digest: str, cache: Path) -> dict[str, float]:
    """Return val and test AP of the promoted student, with the weights it taught with."""
    data = load_config((run / "config.yaml").read_text(encoding="utf-8"))
    datasets = load_datasets(data.data, cache)
    student = TrainingAssets(data, cache, torch.device("cpu"), datasets).teachers.promoted(
        run / PROMOTED_FOLDER / digest
    )
    score = measure_teacher(student, datasets, 16, torch.device("cpu"))
    return {"val_ap": score.val_ap, "test_ap": score.test_ap}


def _table(found: dict[str, dict[str, Any]]) -> list[str]:
    rows = {
        f"best reward of the first {PROMOTE_AFTER} trials": lambda search: _best(search["trials"], later=False),
        "best reward of the trials after them": lambda search: _best(search["trials"], later=True),
        "mean reward of the trials after them": lambda search: f"{statistics.fmean(_values(search, True)):+.2f}",
        "winner": lambda search: _winner(search),
        "winner's test AP, seeds 0 and 1": lambda search: _precisions(search, "searched", "test_ap"),
        "none's test AP, seeds 0 and 1": lambda search: _precisions(search, "none", "test_ap"),
        "winner's gain on none, mean": lambda search: _gain(search),
    }
    head = ("", "without", "with a promoted student")
    return markdown_table(head, [(name, *(row(found[s]) for s in SEARCHES)) for name, row in rows.items()])


def _is_later(trial: dict[str, Any]) -> bool:
    return trial["number"] >= PROMOTE_AFTER


def _values(search: dict[str, Any], later: bool) -> list[float]:
    return [t["value"] for t in search["trials"] if t["value"] is not None and _is_later(t) == later]


def _best(trials: list[dict[str, Any]], later: bool) -> str:
    best = max((t for t in trials if t["value"] is not None and _is_later(t) == later), key=lambda t: t["value"])
    return f"{best['value']:+.2f} (trial {best['number']})"


def _entry(search: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in search["entries"] if entry["name"] == name)


def _winner(search: dict[str, Any]) -> str:
    entry = _entry(search, "searched")
    return f"`{entry['formula']}`" + (", learned from it" if entry["with_promoted"] else "")


def _precisions(search: dict[str, Any], name: str, key: str) -> str:
    return ", ".join(f"{value:.3f}" for value in _entry(search, name)[key])


def _gain(search: dict[str, Any]) -> str:
    by_seed = [dict(zip(e["seeds"], e["test_ap"])) for e in (_entry(search, "searched"), _entry(search, "none"))]
    return gain_text(paired_gain(*by_seed), 3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scratch", type=Path, default=Path("runs/several_teachers"))
    parser.add_argument("--cache-dir", type=Path, default=Path(os.environ.get("AUTOKD_CACHE", ".autokd_cache")))
    options = parser.parse_args()
    main(options.scratch, options.cache_dir)
