"""Samplers compared by searches on a recorded table: which one finds the good distillers first?

Repeat r has sampler seed r, the same for every sampler. A search ends when it has found one of the best specs by the
full training's score and the very best by the proxy's reward, since nothing that is measured changes after that, and at
the latest after ``Settings.cap`` trials.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import optuna

from autokd.benchmark.file import load_benchmark
from autokd.benchmark.identity import current_commit
from autokd.benchmark.simulation.measures import MEASURES, measure, ratios, summary_of
from autokd.benchmark.simulation.reports import Report, quiet
from autokd.benchmark.simulation.samplers import SAMPLERS
from autokd.benchmark.simulation.search import Trace, run_search
from autokd.benchmark.simulation.truth import Objective, Truth, cut_after

SLOW_TRIALS = {"tpe": 80, "tpe_univariate": 80, "gp": 80}
"""Sampler -> trials after which it gives up: Optuna's TPE comes to suggest known specs hundreds of times before a new
one. What a search has not found by then counts as found at that trial, which is in the sampler's favor."""
SLOW_REPEATS = {"gp": 10}
"""Sampler -> repeats: an ask of Optuna's GP takes a tenth of a second."""
REPEATS_A_TASK = 5


@dataclass(frozen=True)
class Settings:
    """Settings that all searches of a comparison share."""

    table: str
    """Path of the recorded table."""
    reward: tuple[str, ...] = ("val_loss", "cka", "ap")
    """Metrics of the proxy that the reward adds."""
    metric: str = "val_ap"
    """Metric of the full training that gives the score: val_ap or test_ap."""
    top: float = 0.01
    """Share of the specs that count as the best."""
    objective: Objective = "proxy"
    """What a search sees: the proxy's reward, or the full training's metric."""
    trials: int = 120
    """Evaluated specs of a search at most."""
    regret_at: tuple[int, ...] = (20, 40, 80)
    """Numbers of trials after which the regret is read."""
    only: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Slot and options of the part of the space that is searched; empty: the whole space."""
    epochs: int | None = None
    """Epochs of a proxy training; None: all that were recorded."""

    def cap(self, sampler: str) -> int:
        """Return the evaluated specs of a search at most."""
        return max(min(self.trials, SLOW_TRIALS.get(sampler, self.trials)), max(self.regret_at))

    def truth(self) -> Truth:
        """Load the table and read scores and rewards from it."""
        table = cut_after(load_benchmark(self.table), self.epochs)
        return Truth(table, self.reward, self.metric, self.top, dict(self.only))


@dataclass(frozen=True)
class Plan:
    """Searches of a comparison: samplers, numbers of workers, repeats of each, and processes that share them."""

    samplers: tuple[str, ...] = tuple(SAMPLERS)
    workers: tuple[int, ...] = (1, 4, 16)
    repeats: int = 100
    processes: int = 2

    def tasks(self) -> list[Task]:
        """Return the work in small pieces, the slow ones first, so that the processes end together."""
        tasks = []
        for sampler in sorted(self.samplers, key=lambda name: (name not in SLOW_REPEATS, name not in SLOW_TRIALS)):
            num_repeats = min(self.repeats, SLOW_REPEATS.get(sampler, self.repeats))
            for workers in self.workers:
                for start in range(0, num_repeats, REPEATS_A_TASK):
                    seeds = tuple(range(start, min(start + REPEATS_A_TASK, num_repeats)))
                    tasks.append(Task(sampler, workers, seeds))
        return tasks


@dataclass(frozen=True)
class Task:
    """Repeats of one sampler with one number of workers, by seed."""

    sampler: str
    num_workers: int
    seeds: tuple[int, ...]


_shared: dict[str, Any] = {}
"""Settings and truth of this process: set once, since they take longer to load than a search."""


def _set_up(settings: Settings) -> None:
    quiet()
    _shared["settings"], _shared["truth"] = settings, settings.truth()


def _run_task(task: Task) -> tuple[Task, list[dict[str, Any]], float]:
    """Return the repeats' measurements, and the seconds that they took."""
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
    """Return whether no further trial can change what is measured.

    The best spec by reward is then known, so the incumbent stays, and with it the regret; and one of the best by score.
    """
    seen = set(trace.rows)
    return int(np.argmax(truth.reward)) in seen and bool(seen & truth.top_score)


@contextmanager
def _results(
    tasks: Sequence[Task], settings: Settings, num_processes: int
) -> Iterator[Iterator[tuple[Task, list[dict[str, Any]], float]]]:
    if num_processes == 1:
        _set_up(settings)
        yield map(_run_task, tasks)
        return
    # Spawned, not forked: a fork would copy the threads' locks of NumPy and torch in whatever state they are.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context, initializer=_set_up, initargs=(settings,)) as pool:
        yield pool.map(_run_task, tasks)


def _run_all(
    tasks: Sequence[Task], settings: Settings, num_processes: int
) -> tuple[dict[tuple[str, int], list[dict[str, Any]]], dict[str, float]]:
    """Return the measurements by (sampler, workers) in the order of seeds, and the seconds by sampler."""
    by_task: dict[Task, list[dict[str, Any]]] = {}
    seconds: dict[str, float] = {}
    with _results(tasks, settings, num_processes) as results:
        for task, found, took in results:
            by_task[task] = found
            seconds[task.sampler] = seconds.get(task.sampler, 0.0) + took
            if len(by_task) * 10 // len(tasks) > (len(by_task) - 1) * 10 // len(tasks):
                print(f"{len(by_task)} of {len(tasks)} pieces", file=sys.stderr, flush=True)
    found_of: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for task in sorted(by_task, key=lambda t: t.seeds):
        found_of.setdefault((task.sampler, task.num_workers), []).extend(by_task[task])
    return found_of, seconds


def compare_samplers(settings: Settings, plan: Plan) -> Report:
    """Run all searches of a comparison.

    Args:
        settings: what the searches share.
        plan: samplers, workers, repeats and processes.

    Returns:
        Rows of the comparison ("rows"), ratios of medians ("ratios"), the measurements of every repeat ("repeats"), and
        what they were made from, as plain data.

    Raises:
        BenchmarkError: if the table does not allow it.
    """
    # For the processes that are spawned below: their NumPy would else start a thread a core each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    quiet()
    truth, began = settings.truth(), time.perf_counter()
    header = truth.benchmark.header
    print(
        f"{settings.table}: {len(truth.index)} specs, top {truth.num_top}; recorded at {', '.join(header.commits)}, "
        f"this is {current_commit() or 'no checkout'}"
    )
    found, seconds = _run_all(plan.tasks(), settings, plan.processes)
    rows = [
        {"cap": settings.cap(sampler), **summary_of(sampler, workers, found[sampler, workers], settings.regret_at)}
        for workers in plan.workers
        for sampler in plan.samplers
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
