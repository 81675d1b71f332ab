"""Which finalist to hand over: the best by the proxy, or the best in full of its best few? On the recorded table.

    python experiments/distiller_benchmark/choosing.py [--repeats 100] [--trials 20 40 80] [--finalists 1 2 3 5 8]

Repeat r has sampler seed r. Of the trials that a search has evaluated, the k with the best reward are trained in full
with seed 0, and the best val AP wins (``search.full_finalists``; k = 1: the proxy alone decides). The winner's gain in
test AP over "none" is the mean over all seeds but 0 if the spec has such, so that the luck by which it was chosen does
not count; else it is that of seed 0. Writes choosing.json and its table in README.md.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autokd.benchmark import BenchmarkRow, current_commit, load_benchmark
from autokd.benchmark.markdown import markdown_table
from autokd.benchmark.simulation import SAMPLERS, Truth, cut_after, run_search
from autokd.benchmark.simulation.measures import summarize
from autokd.benchmark.simulation.scripts import parser_of, run_script


def gain_on_test(row: BenchmarkRow, none: BenchmarkRow) -> float:
    """Return the mean over the seeds that both have, seed 0 only if there is no other; -inf if the training failed."""
    for gain in (row.gain(none, "test_ap", but=0), row.gain(none, "test_ap")):
        if not math.isnan(gain):
            return gain
    return -math.inf


def chosen(trace_rows: list[int], truth: Truth, count: int) -> int:
    """Return, of the distinct ``trace_rows``, the best val AP among the ``count`` best rewards."""
    best = sorted(set(trace_rows), key=lambda row: -truth.reward[row])[:count]
    return max(best, key=lambda row: truth.rows[row].values("val_ap").get(0, float("-inf")))


def compare(options: argparse.Namespace) -> dict[str, Any]:
    table = cut_after(load_benchmark(options.table), options.epochs)
    truth = Truth(table, options.reward)
    gains = [gain_on_test(row, table.none) for row in truth.rows]
    traces = [
        run_search(truth, SAMPLERS[options.sampler](seed, truth.space), num_trials=max(options.trials)).rows
        for seed in range(options.repeats)
    ]
    rows = []
    for trials in options.trials:
        for count in options.finalists:
            won = [gains[chosen(trace[:trials], truth, count)] for trace in traces]
            rows.append({"trials": trials, "finalists": count, "gain": summarize(won)})
    settings = {name: getattr(options, name) for name in ("sampler", "reward", "repeats", "epochs")}
    about = {"commits": table.header.commits, "created": table.header.created}
    return {"commit": current_commit(), "table": about, "settings": settings, "best": max(gains), "rows": rows}


def table_text(report: dict[str, Any]) -> list[str]:
    """Return a row for each number of trials, a column for each number of finalists."""
    finalists = dict.fromkeys(row["finalists"] for row in report["rows"])
    rows = []
    for trials in dict.fromkeys(row["trials"] for row in report["rows"]):
        gains = [row["gain"] for row in report["rows"] if row["trials"] == trials]
        cells = [f"{g['mean']:+.4f} [{g['mean_95'][0]:+.4f}, {g['mean_95'][1]:+.4f}]" for g in gains]
        rows.append([trials, *cells])
    return markdown_table(["trials", *(f"k = {k}" for k in finalists)], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__, Path(__file__).parent)
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 40, 80])
    parser.add_argument("--finalists", type=int, nargs="+", default=[1, 2, 3, 5, 8])
    parser.add_argument("--sampler", default="mcts", choices=[*SAMPLERS])
    return run_script("choosing", parser.parse_args(arguments), compare, table_text)


if __name__ == "__main__":
    sys.exit(main())
