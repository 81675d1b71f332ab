"""Trains every preset in full, beside "none", under one recipe: with a fair gradient ratio and with its published
weights, those of the pair's family of detectors.

    python experiments/presets/run.py work      # any number of processes, each takes what nobody has begun
    python experiments/presets/run.py work --weights ratio          # of one kind of weights alone
    python experiments/presets/run.py collect   # result.json and the table of README.md

Run it at the repository's root. An interrupted process loses the training it was at.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autokd.benchmark.markdown import gain_text, markdown_table, mean_text, paired_gain, write_table
from autokd.benchmark.recording.jobs import record_jobs
from autokd.benchmark.recording.scratch import Scratch
from autokd.benchmark.recording.settings import read_config
from autokd.detectors import detector_family_of
from autokd.jobs import Job, JobId, Outcome
from autokd.presets import load_preset, preset_names
from autokd.spec import DistillerSpec

HERE = Path(__file__).parent
SPACE = Path("search_spaces/bccd.yaml")
SCRATCH = Path("runs/presets")
CACHE = Path(os.environ.get("AUTOKD_CACHE", ".autokd_cache"))
RATIO = 40.0
"""Gradient ratio of the whole preset, shared by its terms: search_spaces/bccd.yaml's baseline gradient ratio."""
SEEDS = (0, 1)
NONE_SEEDS = (0, 1, 2, 3)


def family() -> str | None:
    """Return the family of the pair, its student's, whose published weights every preset gets."""
    return detector_family_of(read_config(SPACE).student)


def entries() -> Iterator[tuple[str, DistillerSpec | None, int]]:
    """Yield (name, spec, seed) of every training, the most important first."""
    for seed in NONE_SEEDS[:2]:
        yield "none", None, seed
    of_pair = family()
    for gradient_ratio in ("published", "ratio"):
        for seed in SEEDS:
            for name in preset_names():
                preset = load_preset(name, of_pair)
                yield (
                    f"{name}@{gradient_ratio}",
                    preset.with_gradient_ratio(RATIO) if gradient_ratio == "ratio" else preset,
                    seed,
                )
    for seed in NONE_SEEDS[2:]:
        yield "none", None, seed


def jobs() -> list[Job]:
    return [Job(str(JobId("full", name, seed)), spec, "full", seed) for name, spec, seed in entries()]


def _row(job: Job, outcome: Outcome, commit: str) -> dict[str, Any]:
    return {
        "name": JobId.parse(job.id).digest,
        "family": job.spec.family if job.spec is not None else "",
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
    by_name = {name: {row["seed"]: row for row in rows if row["name"] == name} for name in {r["name"] for r in rows}}
    none = by_name.get("none", {})
    of_pair = family()
    table = []
    for name in preset_names():
        of_both = [by_name.get(f"{name}@{gradient_ratio}", {}) for gradient_ratio in ("ratio", "published")]
        gains = [paired_gain(test_aps(of_one), test_aps(none)) for of_one in of_both]
        cells = [cell for of_one, gain in zip(of_both, gains) for cell in (mean_cell(of_one), gain_text(gain, 3))]
        best = max((gain.mean for gain in gains if gain is not None), default=-9.0)
        table.append((best, [name, load_preset(name, of_pair).family, *cells]))
    head = (
        "preset",
        "weights published for",
        f"gradient ratio {RATIO:g}: test AP",
        "gain on none",
        "published weights: test AP",
        "gain on none",
    )
    first = ["none", "", mean_cell(none), "", mean_cell(none), ""]
    lines = markdown_table(head, [first, *(cells for _, cells in sorted(table, reverse=True))])
    write_table(HERE / "README.md", "table", lines)
    print("\n".join(lines))


def test_aps(rows: Mapping[int, dict[str, Any]]) -> dict[int, float]:
    """Return the test AP of each finished training, by seed."""
    return {seed: row["metrics"]["test_ap"] for seed, row in rows.items() if row["status"] == "finished"}


def mean_cell(rows: Mapping[int, dict[str, Any]]) -> str:
    """Return mean, deviation and number of the test APs; the cause if a training failed."""
    failed = [row for row in rows.values() if row["status"] != "finished"]
    if failed:
        return str(failed[0]["cause"])
    return f"{mean_text(test_aps(rows).values(), 3)} ({len(rows)})" if rows else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("work", "collect"))
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no training after them")
    parser.add_argument("--weights", choices=("published", "ratio"), help="train presets with these weights alone")
    options = parser.parse_args()
    if options.command == "collect":
        collect()
    else:
        wanted = [job for job in jobs() if not options.weights or options.weights in job.id or "none" in job.id]
        record_jobs(read_config(SPACE), wanted, SCRATCH, CACHE, minutes=options.minutes)
