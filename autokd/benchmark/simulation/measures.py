"""What is read off the traces of searches, and how it is summed up and written."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figure import comparison_svg
from simulate import Trace, Truth

OURS = ("mcts", "mcts_prior")
MEASURES = ("trials_full", "hours_full", "trials_reward", "hours_reward")


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
        # A search that ended early (the best by reward met, or nothing new to suggest) keeps what it had.
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


def summary_of(
    sampler: str, num_workers: int, repeats: list[dict[str, Any]], regret_at: Sequence[int]
) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {"sampler": sampler, "workers": num_workers, "repeats": len(repeats)}
    for name in ("full", "reward"):
        row[f"found_{name}"] = float(np.mean([repeat[f"found_{name}"] for repeat in repeats]))
    for name in MEASURES:
        row[name] = summarise([repeat[name] for repeat in repeats])
    for name in ("full", "reward"):
        for i, n in enumerate(regret_at):
            row[f"regret_{name}_{n}"] = summarise([repeat[f"regret_{name}"][i] for repeat in repeats])
    curves = np.array([repeat["curve"] for repeat in repeats])
    row["curve"] = [round(float(value), 6) for value in curves.mean(axis=0)]
    row["curve_95"] = [[round(v, 6) for v in interval_95(column, np.mean)] for column in curves.T]
    return row


def ratios(rows: Sequence[dict[str, Any]], measure_name: str) -> list[dict[str, Any]]:
    """Medians of ours against random's, and against the best other's, for each number of workers.

    Samplers with fewer repeats than the others are left out: the median of a few is anything.
    """
    found = []
    most = max(row["repeats"] for row in rows)
    for workers in sorted({row["workers"] for row in rows}):
        whole = [row for row in rows if row["workers"] == workers and row["repeats"] == most]
        medians = {row["sampler"]: row[measure_name]["median"] for row in whole}
        others = {name: value for name, value in medians.items() if name not in (*OURS, "random")}
        if "random" not in medians or not others:
            continue
        best = min(others, key=lambda name: others[name])
        for ours in (name for name in OURS if name in medians):
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


def write_csv_and_plot(folder: Path, report: dict[str, Any]) -> None:
    """comparison.csv and comparison.svg."""
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


def table_text(report: dict[str, Any]) -> list[str]:
    """The table for a person: lines of Markdown."""
    last = max(report["settings"]["regret_at"])
    lines = [
        "| workers | sampler | trials to top by AP: median [95%] mean | found | virtual hours | "
        f"trials to top by reward | regret (AP) after {last} |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        full, reward, hours = row["trials_full"], row["trials_reward"], row["hours_full"]
        regret = row[f"regret_full_{last}"]
        lines.append(
            f"| {row['workers']} | {row['sampler']} ({row['repeats']}) | {_cell(full)} {full['mean']:.1f} | "
            f"{row['found_full']:.2f} | {hours['median']:.2f} | {_cell(reward)} {reward['mean']:.1f} | "
            f"{regret['mean']:.4f} [{regret['mean_95'][0]:.4f}, {regret['mean_95'][1]:.4f}] |"
        )
    return lines


def _cell(summary: dict[str, Any]) -> str:
    low, high = summary["median_95"]
    return f"{summary['median']:.1f} [{low:.0f}, {high:.0f}]"
