"""Replays search strategies on the recorded pairs at several costs: strategies.json and gain_by_cost.svg.

    python experiments/pairs/strategies.py

Each pair is judged with the portfolio made of the others. Gains are in test AP over no distillation, chosen on val.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from autokd.benchmark import current_commit
from autokd.benchmark.markdown import markdown_table, write_table
from autokd.benchmark.simulation.cost_figure import cost_svg
from autokd.benchmark.simulation.strategies import recorded_pairs, replay
from autokd.files import write_text_atomically

HERE = Path(__file__).parent
HINDSIGHT = "best preset in hindsight"
BUDGETS = (2.0, 3.0, 5.0, 10.0, 20.0)


def report_of(paths: list[Path], repeats: int) -> dict[str, Any]:
    """Return the mean gain of every strategy on every pair at every budget, and of the choices in hindsight.

    Args:
        paths: tables, one a pair.
        repeats: repeats of each strategy.
    """
    pairs = recorded_pairs(paths)
    gains: dict[str, dict[str, dict[str, float]]] = {}
    for budget in BUDGETS:
        for strategy, of_pairs in replay(pairs, budget, repeats).items():
            found = {name: fmean(values) for name, values in of_pairs.items()}
            gains.setdefault(strategy, {})[f"{budget:g}"] = found
    return {
        "commit": current_commit(),
        "repeats": repeats,
        "distillers": {pair.name: len(pair.rows) for pair in pairs},
        "gains": gains,
        HINDSIGHT: {pair.name: max(map(pair.worth, pair.presets)) for pair in pairs},
    }


def picture(report: dict[str, Any]) -> str:
    """Return the figure of a report: means over the pairs."""
    gains = {
        strategy: {float(budget): fmean(of_pairs.values()) for budget, of_pairs in of_one.items()}
        for strategy, of_one in report["gains"].items()
    }
    hindsight = fmean(report[HINDSIGHT].values())
    num_pairs = len(report["distillers"])
    return cost_svg(
        gains, {"best preset, hindsight": hindsight}, f"Gain of a search by its cost, mean over {num_pairs} pairs"
    )


def lines(report: dict[str, Any]) -> list[str]:
    """Return the table of a report: mean gains in points by budget.

    Args:
        report: what ``report_of`` returns.
    """
    budgets = list(next(iter(report["gains"].values())))
    means = {
        name: [fmean(of_one[budget].values()) for budget in budgets] for name, of_one in report["gains"].items()
    } | {HINDSIGHT: [fmean(report[HINDSIGHT].values())] * len(budgets)}
    rows = [[name, *(f"{100 * value:+.2f}" for value in values)] for name, values in means.items()]
    return markdown_table(["strategy", *budgets], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    report = report_of(sorted((HERE / "records").glob("*.jsonl.gz")), arguments.repeats)
    write_text_atomically(HERE / "strategies.json", json.dumps(report, indent=1) + "\n")
    write_text_atomically(HERE / "gain_by_cost.svg", picture(report))
    write_table(HERE / "README.md", "strategies", lines(report))


if __name__ == "__main__":
    main()
