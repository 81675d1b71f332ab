"""Trains every preset in full, beside "none", under one recipe: with a fair strength and with its published weights.

    python experiments/presets/run.py work      # any number of processes, each takes what nobody has begun
    python experiments/presets/run.py collect   # result.json and the table of README.md

Run it at the repository's root. An interrupted process loses the training it was at; ``work --again`` forgets claims.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import autokd
from autokd.config import RunConfig, load_config
from autokd.documents import dump_yaml, load_document
from autokd.outcomes import Job, Outcome, WorkerResources
from autokd.presets import load_preset, preset_names
from autokd.spec import DistillerSpec

HERE = Path(__file__).parent
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


def config() -> RunConfig:
    data = load_document(SPACE).data
    data["data"]["root"] = os.environ.get("AUTOKD_BCCD", data["data"]["root"])
    return load_config(dump_yaml(data))


def work(again: bool) -> None:
    import torch

    from autokd.data import load_datasets
    from autokd.runtime import contained
    from autokd.training import TrainingEvaluatorFactory, prepare

    torch.set_num_threads(1)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    settings = config()
    datasets = load_datasets(settings.data, CACHE)
    prepare(settings, datasets, CACHE, seeds=(), device="cpu")
    with tempfile.TemporaryDirectory() as files:
        evaluator = TrainingEvaluatorFactory(settings, CACHE, Path(files), datasets)(WorkerResources(1))
        for name, spec, seed in entries():
            path = SCRATCH / f"{name}-s{seed}.json"
            if path.exists() or not _claimed(path.with_suffix(".claim"), again):
                continue
            training = contained(evaluator, Job(path.stem, spec, "full", seed))
            while True:
                try:
                    next(training)
                except StopIteration as end:
                    outcome = end.value
                    break
            about = {"name": name, "seed": seed, "commit": _commit(), **_plain(outcome)}
            temporary = path.with_suffix(".part")
            temporary.write_text(json.dumps(about), encoding="utf-8")
            temporary.rename(path)
            print(name, seed, outcome.status, outcome.metrics.get("test_ap"), f"{outcome.seconds:.0f} s", flush=True)


def _claimed(path: Path, again: bool) -> bool:
    if again:
        path.unlink(missing_ok=True)
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _plain(outcome: Outcome) -> dict[str, object]:
    kept = replace(outcome, artifacts={}, reports=())
    return {
        "status": kept.status,
        "cause": kept.cause,
        "message": kept.message,
        "seconds": round(kept.seconds, 1),
        "metrics": {name: kept.metrics[name] for name in ("val_ap", "test_ap") if name in kept.metrics},
    }


def _commit() -> str:
    code = Path(autokd.__file__).parent  # which need not be this folder's
    command = ["git", "-C", str(code), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def collect() -> None:
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(SCRATCH.glob("*.json"))]
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
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition("<!-- table -->\n")
    _, _, after = rest.partition("<!-- end -->\n")
    readme.write_text(before + "<!-- table -->\n" + "\n".join(lines) + "\n<!-- end -->\n" + after, encoding="utf-8")
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
    parser.add_argument("--again", action="store_true", help="take up what others claimed and did not finish")
    options = parser.parse_args()
    sys.exit(work(options.again) if options.command == "work" else collect())
