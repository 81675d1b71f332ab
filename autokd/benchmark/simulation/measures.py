"""Measures of the traces of searches, and their means over repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autokd.benchmark.bootstrap import interval_95
from autokd.benchmark.simulation.search import Trace
from autokd.benchmark.simulation.truth import Truth

OUR_SAMPLERS = ("mcts", "mcts_prior")
MEASURES = ("trials_full", "hours_full", "trials_reward", "hours_reward")


def measure(trace: Trace, truth: Truth, cap: int, regret_at: Sequence[int]) -> dict[str, Any]:
    """Measure one search.

    Args:
        trace: its trials.
        truth: scores and rewards of all specs.
        cap: trials that a search without a hit counts for, with the hours of the whole search.
        regret_at: numbers of trials after which the regret is read.

    Returns:
        Trials and virtual hours to the first of the best by score ("full") and by reward, whether one was found, the
        regret at ``regret_at``, and the regret by score after each trial up to the last of them ("curve").
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
        # A search that ended early (it found the best by reward, or nothing new to suggest) keeps its last regret.
        row[f"regret_{name}"] = [float(regret[min(n, len(regret)) - 1]) for n in regret_at]
    curve = regrets["full"][: max(regret_at)]
    row["curve"] = [round(float(value), 6) for value in curve] + [round(float(curve[-1]), 6)] * (
        max(regret_at) - len(curve)
    )
    return row


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and median with their 95% intervals."""
    return {
        "mean": float(np.mean(values)),
        "mean_95": interval_95(values, np.mean),
        "median": float(np.median(values)),
        "median_95": interval_95(values, np.median),
    }


def summary_of(
    sampler: str, num_workers: int, repeats: list[dict[str, Any]], regret_at: Sequence[int]
) -> dict[str, Any]:
    """Return one row of the comparison: each measure summarized over the repeats of one sampler."""
    row: dict[str, Any] = {"sampler": sampler, "workers": num_workers, "repeats": len(repeats)}
    for name in ("full", "reward"):
        row[f"found_{name}"] = float(np.mean([repeat[f"found_{name}"] for repeat in repeats]))
    for name in MEASURES:
        row[name] = summarize([repeat[name] for repeat in repeats])
    for name in ("full", "reward"):
        for i, n in enumerate(regret_at):
            row[f"regret_{name}_{n}"] = summarize([repeat[f"regret_{name}"][i] for repeat in repeats])
    curves = np.array([repeat["curve"] for repeat in repeats])
    row["curve"] = [round(float(value), 6) for value in curves.mean(axis=0)]
    row["curve_95"] = [[round(v, 6) for v in interval_95(column, np.mean)] for column in curves.T]
    return row


def ratios(rows: Sequence[dict[str, Any]], measure_name: str) -> list[dict[str, Any]]:
    """Return the medians of ``OUR_SAMPLERS`` over random's and over the best other sampler's, by number of workers.

    Samplers with fewer repeats than the others are left out: the median of a few is mostly noise.

    Args:
        rows: rows of the comparison.
        measure_name: one of ``MEASURES``.
    """
    found = []
    most = max(row["repeats"] for row in rows)
    for workers in sorted({row["workers"] for row in rows}):
        whole = [row for row in rows if row["workers"] == workers and row["repeats"] == most]
        medians = {row["sampler"]: row[measure_name]["median"] for row in whole}
        others = {name: value for name, value in medians.items() if name not in (*OUR_SAMPLERS, "random")}
        if "random" not in medians or not others:
            continue
        best = min(others, key=lambda name: others[name])
        for ours in (name for name in OUR_SAMPLERS if name in medians):
            found.append(
                {
                    "measure": measure_name,
                    "workers": workers,
                    "sampler": ours,
                    "to_random": medians[ours] / medians["random"],
                    "to_best_other": medians[ours] / others[best],
                    "best_other": best,
                }
            )
    return found
