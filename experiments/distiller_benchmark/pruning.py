"""What a pruner saves of a search on the recorded table, and what it costs in quality.

    python experiments/distiller_benchmark/pruning.py [--repeats 100] [--workers 1 16] [--trials 80] [--epochs 2]

Repeat r has sampler seed r, with every pruner. Virtual hours are those of all workers together: CPU hours. A search
without a pruner can do with measuring its reward after the last epoch (``last_epoch``), one with a pruner measures
after every epoch; both ways of going without are there. Quality is what the spec with the best reward among the
trials that ran to the end scores by full training. Writes pruning.json and README.md's table of it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from measures import summarise
from on_table import parser_of, quiet, report_on_table
from recorded.trainer import TRAIN_SECONDS
from simulate import SAMPLERS, Truth, cut_after, run_search

from autokd.benchmark import current_commit, load_benchmark
from autokd.config import SearchConfig
from autokd.search import make_pruner

LAST_EPOCH = "last_epoch"
PRUNERS = ("none", "median", "percentile", "halving", "hyperband")
"""Those that a space file can name."""


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
    """One search: its CPU hours, the part of trials that was pruned, and the gain of what it found."""
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
    """Seconds that a proxy training spent on measuring before its last epoch's end."""
    outcome = truth.rows[row].outcome("proxy", 0)
    if len(outcome.reports) < 2:
        return 0.0
    last_but_one = outcome.reports[-2]
    return last_but_one.seconds - last_but_one.metrics[TRAIN_SECONDS]


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """A row for each pruner and number of workers, differences and ratios repeat by repeat against no pruner."""
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
    """``ours`` and ``whole``: the repeats with and without the pruner, by seed."""
    return {
        "workers": workers,
        "pruner": pruner,
        "pruned": float(np.mean([r["pruned"] for r in ours])),
        "hours": float(np.mean([r["hours"] for r in ours])),
        "hours_ratio": summarise([a["hours"] / b["hours"] for a, b in zip(ours, whole)]),
        "gain": summarise([r["gain"] for r in ours]),
        "gain_difference": summarise([a["gain"] - b["gain"] for a, b in zip(ours, whole)]),
        "reward_difference": summarise([a["reward"] - b["reward"] for a, b in zip(ours, whole)]),
    }


def table_text(report: dict[str, Any]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "| workers | pruner | pruned | CPU hours / those with none [95%] | gain in AP of the best | difference [95%] |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        ratio, gain, difference = row["hours_ratio"], row["gain"], row["gain_difference"]
        lines.append(
            f"| {row['workers']} | {row['pruner']} | {row['pruned']:.2f} | {ratio['mean']:.2f} "
            f"[{ratio['mean_95'][0]:.2f}, {ratio['mean_95'][1]:.2f}] | {gain['mean']:+.4f} | "
            f"{difference['mean']:+.4f} [{difference['mean_95'][0]:+.4f}, {difference['mean_95'][1]:+.4f}] |"
        )
    return lines


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--sampler", default="mcts", choices=[*SAMPLERS])
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--processes", type=int, default=2)
    return 0 if report_on_table("pruning", parser.parse_args(), compare, table_text) else 2


if __name__ == "__main__":
    sys.exit(main())
