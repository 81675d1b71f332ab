"""What is written of searches on a table: JSON, CSV, an SVG, and tables of Markdown."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from autokd.benchmark.markdown import markdown_table, write_table
from autokd.benchmark.simulation.figure import comparison_svg

Report = dict[str, Any]
"""The result of a script as plain data."""
NUM_DIGITS = 6


def quiet() -> None:
    """Silence Optuna and the libraries under it, which log every one of ten thousand trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


def write_report(name: str, report: Report, lines: Sequence[str], folder: Path) -> None:
    """Write NAME.json into a folder, and the table into its README; print the table.

    Args:
        name: name of the file, and of the table in the README.
        report: plain data; numbers keep six digits.
        lines: the table, lines of Markdown.
        folder: made if it is missing. A README.md in it has a place for the table.

    Raises:
        BenchmarkError: if the README has no place for the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rounded = json.loads(json.dumps(report), parse_float=lambda text: float(f"{float(text):.{NUM_DIGITS}g}"))
    (folder / f"{name}.json").write_text(json.dumps(rounded) + "\n", encoding="utf-8")
    if (folder / "README.md").exists():
        write_table(folder / "README.md", name, lines)
    print("\n".join(lines))


def write_comparison(report: Report, folder: Path) -> None:
    """Write comparison.json, comparison.csv and comparison.svg into a folder, and the table into its README."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "comparison.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        rows = [_flat(row) for row in report["rows"]]
        writer.writerow(rows[0])
        writer.writerows([f"{v:.5g}" if isinstance(v, float) else v for v in row.values()] for row in rows)
    (folder / "comparison.svg").write_text(comparison_svg(report), encoding="utf-8")
    write_report("comparison", report, comparison_table(report), folder)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the CSV: each summary as six columns, curves left out."""
    cells: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            for name in ("mean", "median"):
                cells[f"{key}_{name}"] = value[name]
                cells[f"{key}_{name}_low"], cells[f"{key}_{name}_high"] = value[f"{name}_95"]
        elif not isinstance(value, list):
            cells[key] = value
    return cells


def comparison_table(report: Report) -> list[str]:
    """Return the comparison as lines of Markdown."""
    last = max(report["settings"]["regret_at"])
    head = (
        "workers",
        "sampler",
        "trials to top by AP: median [95%] mean",
        "found",
        "virtual hours",
        "trials to top by reward",
        f"regret (AP) after {last}",
    )
    return markdown_table(head, [_cells(row, last) for row in report["rows"]])


def _cells(row: dict[str, Any], last: int) -> tuple[object, ...]:
    full, reward, regret = row["trials_full"], row["trials_reward"], row[f"regret_full_{last}"]
    return (
        row["workers"],
        f"{row['sampler']} ({row['repeats']})",
        f"{median_text(full)} {full['mean']:.1f}",
        f"{row['found_full']:.2f}",
        f"{row['hours_full']['median']:.2f}",
        f"{median_text(reward)} {reward['mean']:.1f}",
        f"{regret['mean']:.4f} [{regret['mean_95'][0]:.4f}, {regret['mean_95'][1]:.4f}]",
    )


def median_text(summary: dict[str, Any]) -> str:
    """Return the median of a summary with its 95% interval."""
    low, high = summary["median_95"]
    return f"{summary['median']:.1f} [{low:.0f}, {high:.0f}]"


def ratio_lines(report: Report) -> list[str]:
    """Return the ratios of medians as lines of text."""
    return [
        f"{ratio['measure']}, {ratio['workers']} workers: {ratio['sampler']} / random {ratio['to_random']:.2f}, "
        f"/ {ratio['best_other']} {ratio['to_best_other']:.2f}"
        for ratio in report["ratios"]
    ]
