"""Which sampler finds the good distillers first? Searches on the recorded table, on a virtual clock.

    python experiments/distiller_benchmark/compare.py [--repeats 100] [--workers 1 4 16] [--objective proxy | full]
        [--samplers mcts random ...] [--reward val_loss cka ap] [--epochs 2] [--trials 120] [--output FOLDER]

Repeat r has sampler seed r, the same for every sampler. A search sees the proxy's reward (or, with --objective full,
the full training's AP). It ends when it has found a spec of the top 1% by the full training's score and the very best
by the proxy's reward, since neither regret nor anything else that is measured changes after that, and at the latest
after --trials (slow samplers earlier). Trials are evaluated specs in the order in which they end; duplicates are
answered from the database and count for nothing. Regret is the best of the table less what the spec with the best proxy
reward so far scores. Writes comparison.json (everything), comparison.csv (the table) and comparison.svg into --output,
and where that is this folder, the table into README.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import optuna
from measures import MEASURES, measure, ratios, summary_of, table_text, write_csv_and_plot
from on_table import parser_of, quiet, report_on_table
from simulate import SAMPLERS, Objective, Trace, Truth, cut_after, run_search

from autokd.benchmark import current_commit, load_benchmark

SLOW_TRIALS = {"tpe": 80, "tpe_univariate": 80, "gp": 80}
"""Samplers that give up earlier: Optuna's TPE comes to suggest known specs hundreds of times before a new one. What a
search has not found by then counts as found at that trial, which is in the sampler's favour."""
SLOW_REPEATS = {"gp": 10}
"""Samplers with fewer repeats: an ask of Optuna's GP takes a tenth of a second."""


@dataclass(frozen=True)
class Task:
    """Some repeats of one sampler with one number of workers."""

    sampler: str
    num_workers: int
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Settings:
    """What all searches share."""

    table: str
    reward: tuple[str, ...]
    metric: str
    top: float
    objective: Objective
    trials: int
    regret_at: tuple[int, ...]
    only: tuple[tuple[str, tuple[str, ...]], ...] = ()
    epochs: int | None = None

    def cap(self, sampler: str) -> int:
        """Evaluated specs of a search at most."""
        return max(min(self.trials, SLOW_TRIALS.get(sampler, self.trials)), max(self.regret_at))

    def truth(self) -> Truth:
        table = cut_after(load_benchmark(self.table), self.epochs)
        return Truth(table, self.reward, self.metric, self.top, dict(self.only))


_shared: dict[str, Any] = {}


def _set_up(settings: Settings) -> None:
    quiet()
    _shared["settings"], _shared["truth"] = settings, settings.truth()


def run_task(task: Task) -> tuple[Task, list[dict[str, Any]], float]:
    """The repeats' measurements, and the seconds that they took."""
    settings, truth = _shared["settings"], _shared["truth"]
    began = time.perf_counter()
    found = []
    for seed in task.seeds:
        trace = run_search(
            truth,
            SAMPLERS[task.sampler](seed, truth.space),
            num_workers=task.num_workers,
            num_trials=settings.cap(task.sampler),
            objective=settings.objective,
            is_enough=lambda trace: is_enough(trace, truth),
        )
        found.append(measure(trace, truth, settings.cap(task.sampler), settings.regret_at))
    return task, found, time.perf_counter() - began


def is_enough(trace: Trace, truth: Truth) -> bool:
    """Whether no further trial can change what is measured: both tops are met, and the last incumbent."""
    seen = set(trace.rows)
    return int(np.argmax(truth.reward)) in seen and bool(seen & truth.top_score)


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """Small pieces, the slow ones first, so that processes end together."""
    tasks = []
    for sampler in sorted(options.samplers, key=lambda name: (name not in SLOW_REPEATS, name not in SLOW_TRIALS)):
        num = min(options.repeats, SLOW_REPEATS.get(sampler, options.repeats))
        for workers in options.workers:
            for start in range(0, num, 5):
                tasks.append(Task(sampler, workers, tuple(range(start, min(start + 5, num)))))
    return tasks


def run_all(
    tasks: Sequence[Task], settings: Settings, num_processes: int
) -> tuple[dict[tuple[str, int], list[dict[str, Any]]], dict[str, float]]:
    """Measurements by (sampler, workers) in the order of seeds, and seconds by sampler."""
    by_task: dict[Task, list[dict[str, Any]]] = {}
    seconds: dict[str, float] = {}
    if num_processes == 1:
        _set_up(settings)
        results = map(run_task, tasks)
        pool = None
    else:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(num_processes, mp_context=context, initializer=_set_up, initargs=(settings,))
        results = pool.map(run_task, tasks)
    for task, found, took in results:
        by_task[task] = found
        seconds[task.sampler] = seconds.get(task.sampler, 0.0) + took
        if len(by_task) * 10 // len(tasks) > (len(by_task) - 1) * 10 // len(tasks):
            print(f"{len(by_task)} of {len(tasks)} pieces", file=sys.stderr, flush=True)
    if pool is not None:
        pool.shutdown()
    found_of: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for task in sorted(by_task, key=lambda t: t.seeds):
        found_of.setdefault((task.sampler, task.num_workers), []).extend(by_task[task])
    return found_of, seconds


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run everything; return what is written."""
    settings = Settings(
        str(options.table), tuple(options.reward), options.metric, options.top, options.objective, options.trials,
        tuple(sorted(options.regret_at)), tuple(options.only), options.epochs,
    )  # fmt: skip
    truth, began = settings.truth(), time.perf_counter()
    header = truth.benchmark.header
    print(f"{options.table}: {len(truth.index)} specs, top {truth.num_top}; recorded at "
          f"{', '.join(header.commits)}, this is {current_commit() or 'no checkout'}")  # fmt: skip
    found, seconds = run_all(tasks_of(options), settings, options.processes)
    rows = [
        {"cap": settings.cap(sampler), **summary_of(sampler, workers, found[sampler, workers], settings.regret_at)}
        for workers in options.workers
        for sampler in options.samplers
    ]
    return {
        "commit": current_commit(),
        "table": {"commits": header.commits, "created": header.created, "specs": len(truth.index)},
        "optuna": optuna.__version__,
        "settings": {key: value for key, value in asdict(settings).items() if key != "table"},
        "num_top": truth.num_top,
        "best_score": float(truth.score.max()),
        "reward_score_correlation": float(np.corrcoef(truth.reward, truth.score)[0, 1]),
        "seconds": {"wall": time.perf_counter() - began} | seconds,
        "rows": rows,
        "ratios": [*ratios(rows, "trials_full"), *ratios(rows, "trials_reward")],
        "repeats": [
            {"sampler": s, "workers": w, **{name: [r[name] for r in rs] for name in ("found_full", *MEASURES)}}
            for (s, w), rs in found.items()
        ],
    }


def _only(text: str) -> tuple[str, tuple[str, ...]]:
    slot, _, labels = text.partition("=")
    return slot, tuple(labels.split(","))


def comparison_parser(doc: str | None) -> argparse.ArgumentParser:
    parser = parser_of(doc)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--samplers", nargs="+", default=[*SAMPLERS], choices=[*SAMPLERS])
    parser.add_argument("--objective", choices=("proxy", "full"), default="proxy")
    parser.add_argument("--metric", default="val_ap", help="of the full training: val_ap or test_ap")
    parser.add_argument("--top", type=float, default=0.01)
    parser.add_argument("--trials", type=int, default=120, help="at most so many evaluated specs a search")
    parser.add_argument("--regret-at", type=int, nargs="+", default=[20, 40, 80])
    parser.add_argument("--only", type=_only, nargs="*", default=[], help="slot=label,label: a part of the space")
    parser.add_argument("--processes", type=int, default=2)
    return parser


def main() -> int:
    options = comparison_parser(__doc__).parse_args()
    report = report_on_table("comparison", options, compare, table_text)
    if report is None:
        return 2
    write_csv_and_plot(options.output, report)
    for ratio in report["ratios"]:
        print(f"{ratio['measure']}, {ratio['workers']} workers: {ratio['sampler']} / random {ratio['to_random']:.2f}, "
              f"/ {ratio['best_other']} {ratio['to_best_other']:.2f}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
