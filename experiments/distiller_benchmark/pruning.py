"""How much of a search does a pruner save on the recorded table, and what does it cost in quality?

    python experiments/distiller_benchmark/pruning.py [--repeats 100] [--workers 1 16] [--trials 80] [--epochs 2]

Repeat r has sampler seed r, with every pruner. Virtual hours are those of all workers together: CPU hours. A search
without a pruner needs its reward after the last epoch only (``last_epoch``), one with a pruner after every epoch
(``none`` measures as often, and prunes nothing). Quality is the score by full training of the spec with the best reward
among the trials that ran to the end. Writes pruning.json and its table in README.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autokd.benchmark import current_commit, load_benchmark
from autokd.benchmark.markdown import markdown_table
from autokd.benchmark.recording.trainer import TRAIN_SECONDS
from autokd.benchmark.simulation import SAMPLERS, Truth, cut_after, run_search
from autokd.benchmark.simulation.measures import summarize
from autokd.benchmark.simulation.reports import quiet
from autokd.benchmark.simulation.scripts import parser_of, run_script
from autokd.config import SearchConfig
from autokd.search import make_pruner

LAST_EPOCH = "last_epoch"
PRUNERS = ("none", "median", "percentile", "halving", "hyperband")
"""The pruners that a config file can name."""


@dataclass(frozen=True)
class Settings:
    table: str
    reward: tuple[str, ...]
    sampler: str
    trials: int
    epochs: int | None


_shared: dict[str, Any] = {}


def _set_up(settings: Settings) -> None:
    quiet()
    table = cut_after(load_benchmark(settings.table), settings.epochs)
    _shared["settings"], _shared["truth"] = settings, Truth(table, settings.reward)


def run_repeat(task: tuple[str, int, int]) -> dict[str, float]:
    """Run one search; return its CPU hours, the share of trials that was pruned, and the gain of its best spec."""
    pruner, num_workers, seed = task
    settings, truth = _shared["settings"], _shared["truth"]
    trace = run_search(
        truth,
        SAMPLERS[settings.sampler](seed, truth.space),
        num_workers=num_workers,
        num_trials=settings.trials,
        pruner=make_pruner(SearchConfig.model_validate({"pruner": pruner})),
    )
    ended = np.array(trace.rows)[np.array(trace.finished)]
    return {
        "hours": trace.busy_s / 3600,
        "early_hours": sum(early_measuring_s(truth, row) for row in trace.rows) / 3600,
        "pruned": 1.0 - len(ended) / len(trace.rows),
        "gain": float(truth.score[ended[np.argmax(truth.reward[ended])]]),
        "reward": float(truth.reward[ended].max()),
    }


def early_measuring_s(truth: Truth, row: int) -> float:
    """Return the seconds that a proxy training spent on measuring before its last epoch."""
    outcome = truth.rows[row].outcome("proxy", 0)
    if len(outcome.reports) < 2:
        return 0.0
    last_but_one = outcome.reports[-2]
    return last_but_one.seconds - last_but_one.metrics[TRAIN_SECONDS]


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Return a row for each pruner and number of workers; differences and ratios are taken repeat by repeat."""
    settings = Settings(str(options.table), tuple(options.reward), options.sampler, options.trials, options.epochs)
    context = multiprocessing.get_context("spawn")
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    with ProcessPoolExecutor(options.processes, mp_context=context, initializer=_set_up, initargs=(settings,)) as pool:
        for workers in options.workers:
            for pruner in PRUNERS:
                tasks = [(pruner, workers, seed) for seed in range(options.repeats)]
                found[workers, pruner] = list(pool.map(run_repeat, tasks, chunksize=5))
                if pruner == "none":
                    found[workers, LAST_EPOCH] = [
                        r | {"hours": r["hours"] - r["early_hours"]} for r in found[workers, pruner]
                    ]
                print(f"{workers} workers, {pruner}", file=sys.stderr, flush=True)
    header = load_benchmark(options.table).header
    return {
        "commit": current_commit(),
        "table": {"commits": header.commits, "created": header.created},
        "settings": {
            "sampler": options.sampler,
            "reward": options.reward,
            "trials": options.trials,
            "epochs": options.epochs,
            "repeats": options.repeats,
        },
        "rows": [row_of(w, pruner, found[w, pruner], found[w, "none"]) for w, pruner in found],
    }


def row_of(
    workers: int, pruner: str, ours: Sequence[dict[str, float]], whole: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """Return one row; ``ours`` and ``whole`` are the repeats with and without the pruner, by seed."""
    return {
        "workers": workers,
        "pruner": pruner,
        "pruned": float(np.mean([r["pruned"] for r in ours])),
        "hours": float(np.mean([r["hours"] for r in ours])),
        "hours_ratio": summarize([a["hours"] / b["hours"] for a, b in zip(ours, whole)]),
        "gain": summarize([r["gain"] for r in ours]),
        "gain_difference": summarize([a["gain"] - b["gain"] for a, b in zip(ours, whole)]),
        "reward_difference": summarize([a["reward"] - b["reward"] for a, b in zip(ours, whole)]),
    }


def table_text(report: dict[str, Any]) -> list[str]:
    """Return a row for each number of workers and pruner."""
    head = (
        "workers",
        "pruner",
        "pruned",
        "CPU hours / those with none [95%]",
        "gain in AP of the best",
        "difference [95%]",
    )
    rows = []
    for row in report["rows"]:
        ratio, difference = row["hours_ratio"], row["gain_difference"]
        low, high = difference["mean_95"]
        rows.append(
            (
                row["workers"],
                row["pruner"],
                f"{row['pruned']:.2f}",
                f"{ratio['mean']:.2f} [{ratio['mean_95'][0]:.2f}, {ratio['mean_95'][1]:.2f}]",
                f"{row['gain']['mean']:+.4f}",
                f"{difference['mean']:+.4f} [{low:+.4f}, {high:+.4f}]",
            )
        )
    return markdown_table(head, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__, Path(__file__).parent)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--sampler", default="mcts", choices=[*SAMPLERS])
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--processes", type=int, default=2)
    return run_script("pruning", parser.parse_args(arguments), compare, table_text)


if __name__ == "__main__":
    sys.exit(main())
