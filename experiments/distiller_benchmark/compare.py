"""Which sampler finds the good distillers first? Searches on the recorded table, on a virtual clock.

    python experiments/distiller_benchmark/compare.py [--repeats 100] [--workers 1 4 16] [--objective proxy | full]
        [--samplers mcts random ...] [--reward val_loss cka] [--trials 200] [--processes 2] [--output FOLDER]

Repeat r has sampler seed r, the same for every sampler. A search sees the proxy's reward (or, with --objective full,
the full training's AP). It ends when it has found a spec of the top 1% by the full training's score and one of the
top 1% by the proxy's reward, but not before the last of --regret-at, and at the latest after --trials (slow samplers
earlier). Trials are evaluated specs in the order in which they end; duplicates are answered from the database and
count for nothing. Regret is the best of the table less what the spec with the best proxy reward so far scores.
Writes comparison.json (everything), comparison.csv (the table) and comparison.svg into --output.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from figure import comparison_svg
from simulate import SAMPLERS, Objective, Trace, Truth, run_search

from autokd.benchmark import current_commit, load_benchmark
from autokd.errors import AutoKDError

HERE = Path(__file__).parent
SLOW_TRIALS = {"tpe": 80, "gp": 80}
"""Samplers that give up earlier: Optuna's TPE comes to suggest known specs hundreds of times before a new one. What a
search has not found by then counts as found at that trial, which is in the sampler's favour."""
SLOW_REPEATS = {"gp": 10}
"""Samplers with fewer repeats: an ask of Optuna's GP takes a tenth of a second."""
MEASURES = ("trials_full", "hours_full", "trials_reward", "hours_reward")


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

    def cap(self, sampler: str) -> int:
        """Evaluated specs of a search at most."""
        return max(min(self.trials, SLOW_TRIALS.get(sampler, self.trials)), max(self.regret_at))

    def truth(self) -> Truth:
        return Truth(load_benchmark(self.table), self.reward, self.metric, self.top, dict(self.only))


_shared: dict[str, Any] = {}


def _set_up(settings: Settings) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    _shared["settings"], _shared["truth"] = settings, settings.truth()


def run_task(task: Task) -> tuple[Task, list[dict[str, Any]], float]:
    """The repeats' measurements, and the seconds that they took."""
    settings, truth = _shared["settings"], _shared["truth"]
    began = time.perf_counter()
    found = []
    for seed in task.seeds:
        trace = run_search(
            truth,
            SAMPLERS[task.sampler](seed),
            num_workers=task.num_workers,
            num_trials=settings.cap(task.sampler),
            objective=settings.objective,
            is_enough=lambda trace: _is_enough(trace, truth, settings),
        )
        found.append(measure(trace, truth, settings.cap(task.sampler), settings.regret_at))
    return task, found, time.perf_counter() - began


def _is_enough(trace: Trace, truth: Truth, settings: Settings) -> bool:
    if len(trace.rows) < max(settings.regret_at):
        return False
    seen = set(trace.rows)
    return bool(seen & truth.top_score) and bool(seen & truth.top_reward)


def measure(trace: Trace, truth: Truth, cap: int, regret_at: Sequence[int]) -> dict[str, Any]:
    """Trials and virtual hours to the top; regret by number of trials.

    What was not found counts as ``cap`` trials, with the hours of the whole search.
    """
    row: dict[str, Any] = {}
    for name, wanted in (("full", truth.top_score), ("reward", truth.top_reward)):
        first = trace.first(wanted)
        row[f"found_{name}"] = first is not None
        row[f"trials_{name}"] = cap if first is None else first
        row[f"hours_{name}"] = trace.seconds[len(trace.seconds) - 1 if first is None else first - 1] / 3600
    rewards = truth.reward[trace.rows]
    best = np.array(trace.rows)[[int(np.argmax(rewards[: n + 1])) for n in range(len(rewards))]]
    regrets = {"full": truth.score.max() - truth.score[best], "reward": truth.reward.max() - truth.reward[best]}
    for name, regret in regrets.items():
        # A search that ended early (the space exhausted, by its own lights) keeps what it had.
        row[f"regret_{name}"] = [float(regret[min(n, len(regret)) - 1]) for n in regret_at]
    curve = regrets["full"][: max(regret_at)]
    row["curve"] = [round(float(value), 6) for value in curve] + [round(float(curve[-1]), 6)] * (
        max(regret_at) - len(curve)
    )
    return row


def interval_95(values: Sequence[float], statistic: Any) -> tuple[float, float]:
    """By bootstrap over repeats."""
    rng = np.random.default_rng(0)
    drawn = statistic(rng.choice(np.asarray(values, dtype=float), (2000, len(values))), axis=1)
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def summarise(values: Sequence[float]) -> dict[str, Any]:
    """Mean and median with their intervals."""
    return {
        "mean": float(np.mean(values)),
        "mean_95": interval_95(values, np.mean),
        "median": float(np.median(values)),
        "median_95": interval_95(values, np.median),
    }


def summary_of(sampler: str, num_workers: int, repeats: list[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {"sampler": sampler, "workers": num_workers, "repeats": len(repeats)}
    row["cap"] = settings.cap(sampler)
    for name in ("full", "reward"):
        row[f"found_{name}"] = float(np.mean([repeat[f"found_{name}"] for repeat in repeats]))
    for name in MEASURES:
        row[name] = summarise([repeat[name] for repeat in repeats])
    for name in ("full", "reward"):
        for i, n in enumerate(settings.regret_at):
            row[f"regret_{name}_{n}"] = summarise([repeat[f"regret_{name}"][i] for repeat in repeats])
    curves = np.array([repeat["curve"] for repeat in repeats])
    row["curve"] = [round(float(value), 6) for value in curves.mean(axis=0)]
    row["curve_95"] = [[round(v, 6) for v in interval_95(column, np.mean)] for column in curves.T]
    return row


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
        print(f"\r{len(by_task)} of {len(tasks)} pieces", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if pool is not None:
        pool.shutdown()
    found_of: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for task in sorted(by_task, key=lambda t: t.seeds):
        found_of.setdefault((task.sampler, task.num_workers), []).extend(by_task[task])
    return found_of, seconds


def ratios(rows: Sequence[dict[str, Any]], measure_name: str) -> list[dict[str, Any]]:
    """MCTS's median against random's, and against the best other's, for each number of workers."""
    found = []
    for workers in sorted({row["workers"] for row in rows}):
        medians = {row["sampler"]: row[measure_name]["median"] for row in rows if row["workers"] == workers}
        others = {name: value for name, value in medians.items() if name not in ("mcts", "random")}
        if "mcts" in medians and "random" in medians and others:
            best = min(others, key=lambda name: others[name])
            found.append(
                {
                    "measure": measure_name,
                    "workers": workers,
                    "to_random": medians["mcts"] / medians["random"],
                    "to_best_other": medians["mcts"] / others[best],
                    "best_other": best,
                }
            )
    return found


def write(folder: Path, report: dict[str, Any]) -> None:
    """comparison.json, .csv and .svg."""
    folder.mkdir(parents=True, exist_ok=True)
    rounded = json.loads(json.dumps(report), parse_float=lambda text: float(f"{float(text):.6g}"))
    (folder / "comparison.json").write_text(json.dumps(rounded) + "\n", encoding="utf-8")
    with (folder / "comparison.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        rows = [flat(row) for row in report["rows"]]
        writer.writerow(rows[0])
        writer.writerows([f"{v:.5g}" if isinstance(v, float) else v for v in row.values()] for row in rows)
    (folder / "comparison.svg").write_text(comparison_svg(report), encoding="utf-8")


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the CSV: each summary as six columns, curves left out."""
    cells: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            for name in ("mean", "median"):
                cells[f"{key}_{name}"] = value[name]
                cells[f"{key}_{name}_low"], cells[f"{key}_{name}_high"] = value[f"{name}_95"]
        elif not isinstance(value, list):
            cells[key] = value
    return cells


def table_text(rows: Sequence[dict[str, Any]], settings: Settings) -> str:
    """The table for a person, in Markdown."""
    last = max(settings.regret_at)
    lines = [
        "| workers | sampler | trials to top by AP: median [95%] mean | found | virtual hours | "
        f"trials to top by reward | regret (AP) after {last} |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        full, reward, hours = row["trials_full"], row["trials_reward"], row["hours_full"]
        regret = row[f"regret_full_{last}"]
        lines.append(
            f"| {row['workers']} | {row['sampler']} ({row['repeats']}) | {_cell(full)} {full['mean']:.1f} | "
            f"{row['found_full']:.2f} | {hours['median']:.2f} | {_cell(reward)} {reward['mean']:.1f} | "
            f"{regret['mean']:.4f} [{regret['mean_95'][0]:.4f}, {regret['mean_95'][1]:.4f}] |"
        )
    return "\n".join(lines)


def _cell(summary: dict[str, Any]) -> str:
    low, high = summary["median_95"]
    return f"{summary['median']:.1f} [{low:.0f}, {high:.0f}]"


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run everything; return what is written."""
    settings = Settings(
        str(options.table), tuple(options.reward), options.metric, options.top, options.objective, options.trials,
        tuple(sorted(options.regret_at)), tuple(options.only),
    )  # fmt: skip
    truth, began = settings.truth(), time.perf_counter()
    header = truth.benchmark.header
    print(f"{options.table}: {len(truth.index)} specs, top {truth.num_top}; recorded at "
          f"{', '.join(header.commits)}, this is {current_commit() or 'no checkout'}")  # fmt: skip
    found, seconds = run_all(tasks_of(options), settings, options.processes)
    rows = [
        summary_of(sampler, workers, found[sampler, workers], settings)
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


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, default=HERE / "table.jsonl.gz")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--samplers", nargs="+", default=[*SAMPLERS], choices=[*SAMPLERS])
    parser.add_argument("--objective", choices=("proxy", "full"), default="proxy")
    parser.add_argument("--reward", nargs="+", default=["val_loss", "cka"])
    parser.add_argument("--metric", default="val_ap", help="of the full training: val_ap or test_ap")
    parser.add_argument("--top", type=float, default=0.01)
    parser.add_argument("--trials", type=int, default=200, help="at most so many evaluated specs a search")
    parser.add_argument("--regret-at", type=int, nargs="+", default=[20, 40, 80])
    parser.add_argument("--only", type=_only, nargs="*", default=[], help="slot=label,label: a part of the space")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        report = compare(options)
    except AutoKDError as error:
        print(error, file=sys.stderr)
        return 2
    write(options.output, report)
    print(table_text(report["rows"], Settings(**{"table": "", **report["settings"]})))
    for ratio in report["ratios"]:
        print(f"{ratio['measure']}, {ratio['workers']} workers: mcts / random {ratio['to_random']:.2f}, "
              f"mcts / {ratio['best_other']} {ratio['to_best_other']:.2f}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
