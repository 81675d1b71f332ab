"""Fidelity against cost: Kendall's tau of each form of the proxy, with the ceiling and what gradient ratio alone
tells."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from fidelity import rows_of_one_seed
from matplotlib.figure import Figure

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "autokd"  # equal data, equal file

REWARD = "parts of val_loss + cka + ap"
COLORS = {"warm": "tab:red", "start": "tab:green", "": "tab:blue"}
"""From a warm start; from scratch, with boxes that start at one stride; from scratch."""
LABEL_SPACING = 0.022


def curves(result: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Form -> (cost, tau) after each epoch, the mean over proxies of one seed each."""
    found: dict[str, list[tuple[float, float]]] = {}
    for (name, _), rows in rows_of_one_seed(result).items():
        cost = statistics.mean(row["cost"] for row in rows)
        found.setdefault(name, []).append((cost, statistics.mean(row["tau"][REWARD]["all"] for row in rows)))
    return found


def spread(heights: Sequence[float]) -> list[float]:
    """Heights in rising order, moved apart upwards and downwards by as much, to LABEL_SPACING."""
    upwards, downwards = [*heights], [*heights]
    for i in range(1, len(heights)):
        upwards[i] = max(upwards[i], upwards[i - 1] + LABEL_SPACING)
        downwards[-i - 1] = min(downwards[-i - 1], downwards[-i] - LABEL_SPACING)
    return [(up + down) / 2 for up, down in zip(upwards, downwards, strict=True)]


def draw(result: Mapping[str, Any]) -> Figure:
    """A line for each form, its epochs from left to right; the names stand beside, in the order of the last epochs."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    by_end = sorted(curves(result).items(), key=lambda item: item[1][-1][1])
    right = max(points[-1][0] for _, points in by_end)
    for (name, points), label_y in zip(by_end, spread([points[-1][1] for _, points in by_end]), strict=True):
        color = COLORS["warm" if name.startswith("warm") else "start" if name.endswith("start") else ""]
        axes.plot(*zip(*points, strict=True), marker=".", linewidth=1, color=color)
        axes.annotate(
            name, points[-1], xytext=(1.1 * right, label_y), fontsize=7, color=color, va="center",
            arrowprops={"arrowstyle": "-", "color": "lightgray", "linewidth": 0.5, "relpos": (0, 0.5)},
        )  # fmt: skip
    for level, name, style in ((result["ceiling"]["all"], "full training with another seed", "-"),
                               (result["gradient_ratio_only"], "gradient ratio alone", "--")):  # fmt: skip
        axes.axhline(level, color="black", linewidth=1, linestyle=style)
        axes.annotate(name, (0, level), xytext=(2, 2), textcoords="offset points", fontsize=8)
    axes.set(xlabel="cost, in full trainings", ylabel="Kendall's tau with val AP of full trainings")
    axes.set(xlim=(0, 1.5 * right), ylim=(min(0, axes.get_ylim()[0]), 1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
