"""Whom to retrain: the best by the proxy, or the best in full of its best few? On the recorded table.

    python experiments/distiller_benchmark/choosing.py [--repeats 100] [--trials 20 40 80] [--finalists 1 2 3 5 8]

Repeat r has sampler seed r. Of the trials that a search has evaluated, the k with the best reward are trained in full
with seed 0, and the best val AP wins (``search.full_finalists``; k = 1: the proxy alone decides). What is won is the
gain in test AP over "none", over all seeds but 0 where the spec has them, so that the luck by which it was chosen does
not count; else with seed 0. Writes choosing.json and README.md's table of it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from measures import summarise
from recorded.readme import write_table
from simulate import SAMPLERS, Truth, cut_after, run_search

from autokd.benchmark import BenchmarkRow, current_commit, load_benchmark
from autokd.errors import AutoKDError


def test_gain(row: BenchmarkRow, none: BenchmarkRow) -> float:
    """Mean over the seeds that both have, seed 0 only if there is no other; -inf if the training failed."""
    ours, theirs = row.values("test_ap"), none.values("test_ap")
    seeds = [seed for seed in ours if seed in theirs]
    seeds = [seed for seed in seeds if seed != 0] or seeds
    return float(np.mean([ours[seed] - theirs[seed] for seed in seeds])) if seeds else float("-inf")


def chosen(trace_rows: list[int], truth: Truth, count: int) -> int:
    """Of the distinct ``trace_rows``, the best val AP among the ``count`` best rewards."""
    best = sorted(set(trace_rows), key=lambda row: -truth.reward[row])[:count]
    return max(best, key=lambda row: truth.rows[row].values("val_ap").get(0, float("-inf")))


def compare(options: argparse.Namespace) -> dict[str, Any]:
    table = load_benchmark(options.table)
    if options.epochs is not None:
        table = cut_after(table, options.epochs)
    truth = Truth(table, options.reward)
    gains = [test_gain(row, table.none) for row in truth.rows]
    traces = [
        run_search(truth, SAMPLERS[options.sampler](seed, truth.space), num_trials=max(options.trials)).rows
        for seed in range(options.repeats)
    ]
    rows = []
    for trials in options.trials:
        for count in options.finalists:
            won = [gains[chosen(trace[:trials], truth, count)] for trace in traces]
            rows.append({"trials": trials, "finalists": count, "gain": summarise(won)})
    settings = {name: getattr(options, name) for name in ("sampler", "reward", "repeats", "epochs")}
    about = {"commits": table.header.commits, "created": table.header.created}
    return {"commit": current_commit(), "table": about, "settings": settings, "best": max(gains), "rows": rows}


def table_text(report: dict[str, Any], finalists: list[int]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| trials | " + " | ".join(f"k = {k}" for k in finalists) + " |", "|---" * (1 + len(finalists)) + "|"]
    for trials in dict.fromkeys(row["trials"] for row in report["rows"]):
        gains = [row["gain"] for row in report["rows"] if row["trials"] == trials]
        cells = [f"{g['mean']:+.4f} [{g['mean_95'][0]:+.4f}, {g['mean_95'][1]:+.4f}]" for g in gains]
        lines.append(f"| {trials} | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, default=HERE / "table.jsonl.gz")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 40, 80])
    parser.add_argument("--finalists", type=int, nargs="+", default=[1, 2, 3, 5, 8])
    parser.add_argument("--sampler", default="mcts", choices=[*SAMPLERS])
    parser.add_argument("--reward", nargs="+", default=["val_loss", "cka", "ap"])
    parser.add_argument("--epochs", type=int, default=None, help="of the proxy; left out: all that were recorded")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    try:
        report = compare(options)
    except AutoKDError as error:
        print(error, file=sys.stderr)
        return 2
    rounded = json.loads(json.dumps(report), parse_float=lambda text: float(f"{float(text):.6g}"))
    (options.output / "choosing.json").write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    lines = table_text(report, options.finalists)
    if options.output == HERE:
        write_table(HERE / "README.md", "choosing", lines)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
