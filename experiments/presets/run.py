"""Trains every preset in full, beside "none", under one recipe: with a fair strength and with its published weights.

    python experiments/presets/run.py work      # any number of processes, each takes what nobody has begun
    python experiments/presets/run.py collect   # result.json and the table of README.md

Run it at the repository's root. An interrupted process loses the training it was at.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from recorded.readme import write_table
from recorded.scratch import Scratch
from recorded.trainer import read_config
from recorded.work import record

from autokd.outcomes import Job, JobId, Outcome
from autokd.presets import load_preset, preset_names
from autokd.spec import DistillerSpec

SPACE = Path("search_spaces/bccd.yaml")
SCRATCH = Path("runs/presets")
CACHE = Path(os.environ.get("AUTOKD_CACHE", ".autokd_cache"))
RATIO = 40.0
"""Gradient ratio of the whole preset, shared by its terms: search_spaces/bccd.yaml's baseline strength."""
SEEDS = (0, 1)
NONE_SEEDS = (0, 1, 2, 3)


def entries() -> Iterator[tuple[str, DistillerSpec | None, int]]:
    """(name, spec, seed) of every training, the most important first."""
    for seed in NONE_SEEDS[:2]:
        yield "none", None, seed
    for strength in ("ratio", "published"):
        for seed in SEEDS:
            for name in preset_names():
                preset = load_preset(name)
                yield f"{name}@{strength}", preset.with_strength(RATIO) if strength == "ratio" else preset, seed
    for seed in NONE_SEEDS[2:]:
        yield "none", None, seed


def jobs() -> list[Job]:
    return [Job(str(JobId("full", name, seed)), spec, "full", seed) for name, spec, seed in entries()]


def _row(job: Job, outcome: Outcome, commit: str) -> dict[str, Any]:
    return {
        "name": JobId.parse(job.id).digest,
        "seed": job.seed,
        "commit": commit,
        "status": outcome.status,
        "cause": outcome.cause,
        "message": outcome.message,
        "seconds": round(outcome.seconds, 1),
        "metrics": {name: outcome.metrics[name] for name in ("val_ap", "test_ap") if name in outcome.metrics},
    }


def collect() -> None:
    scratch = Scratch(SCRATCH, read_config(SPACE), ["full"])
    outcomes, commits = scratch.read()[0], scratch.commits()
    rows = [_row(job, outcomes[job.id], commits[job.id]) for job in jobs() if job.id in outcomes]
    (HERE / "result.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    lines = [
        "| preset | ratio 40: test AP | gain on none | published weights: test AP | gain on none |",
        "|---|---|---|---|---|",
    ]
    none = {row["seed"]: row for row in rows if row["name"] == "none"}
    lines.append(f"| none | {_mean(none)} | | {_mean(none)} | |")
    table = []
    for name in preset_names():
        by_strength = [
            {row["seed"]: row for row in rows if row["name"] == f"{name}@{strength}"}
            for strength in ("ratio", "published")
        ]
        gains = [_gain_value(ours, none) for ours in by_strength]
        cells = [cell for ours in by_strength for cell in (_mean(ours), _gain(ours, none))]
        best = max((gain for gain in gains if gain is not None), default=-9.0)
        table.append((best, f"| {name} | " + " | ".join(cells) + " |"))
    lines += [line for _, line in sorted(table, reverse=True)]
    write_table(HERE / "README.md", "table", lines)
    print("\n".join(lines))


def _mean(rows: dict[int, dict]) -> str:
    failed = [row for row in rows.values() if row["status"] != "finished"]
    if failed:
        return f"{failed[0]['cause']}"
    values = [row["metrics"]["test_ap"] for row in rows.values()]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread} ({len(values)})"


def _gain_value(rows: dict[int, dict], none: dict[int, dict]) -> float | None:
    pairs = [
        row["metrics"]["test_ap"] - none[seed]["metrics"]["test_ap"]
        for seed, row in rows.items()
        if row["status"] == "finished" and seed in none
    ]
    return statistics.fmean(pairs) if pairs else None


def _gain(rows: dict[int, dict], none: dict[int, dict]) -> str:
    value = _gain_value(rows, none)
    return "" if value is None else f"{value:+.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("work", "collect"))
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no training after them")
    options = parser.parse_args()
    if options.command == "collect":
        collect()
    else:
        record(read_config(SPACE), jobs(), SCRATCH, CACHE, minutes=options.minutes)
