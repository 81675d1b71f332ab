"""Test AP of every distiller: a dot for each seed, a bar at the mean; a panel for each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "autokd"  # equal data, equal file

COLORS = {"searched": "tab:red", "combined": "tab:orange", "none": "black"}
"""Of all others: blue."""


def draw(result: Mapping[str, Any], titles: Mapping[str, str]) -> Figure:
    """``titles``: stage of ``gain.json`` -> what stands above its panel; the first stage stands on the left."""
    panels = [stage for stage in titles if stage in result]
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    axes = figure.subplot_mosaic([[panels[0], stage] for stage in panels[1:]])
    for stage in panels:
        _panel(axes[stage], result[stage]["rows"], titles[stage])
    return figure


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    test_aps: dict[str, list[float]] = {}
    for row in rows:
        if "test_ap" in row:
            test_aps.setdefault(row["name"], []).append(row["test_ap"])
    names = sorted(test_aps, key=lambda name: mean(test_aps[name]))
    for height, name in enumerate(names):
        color = COLORS.get(name, "tab:blue")
        axes.plot(test_aps[name], [height] * len(test_aps[name]), ".", color=color, alpha=0.6)
        axes.plot([mean(test_aps[name])], [height], "|", color=color, markersize=10, markeredgewidth=2)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("test AP", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
