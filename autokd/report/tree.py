"""The tree of a search: one box a decision, its size the number of visits, its color the mean value.

It is drawn from the trials' decisions alone, so every sampler's search has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autokd.report.style import (
    GRAY,
    INK,
    color_of,
    color_scale,
    escape,
    ink_on,
    plain_figure,
    say_instead,
    value_range,
)
from autokd.report.view import TrialView

if TYPE_CHECKING:
    import plotly.graph_objects as go

Path = tuple[tuple[str, str], ...]

MAX_NODES = 400
"""Number of boxes above which they cannot be distinguished, and a page or a database entry becomes large."""


@dataclass(frozen=True, slots=True)
class Visited:
    """A node of the tree.

    Args:
        path: decisions that lead to it.
        steps: last decisions of ``path``, several if decisions with a single answer were joined.
        parent: path of the node above; None: the root.
        trials: numbers of the trials that passed.
        values: values of the finished ones among them.
    """

    path: Path
    steps: Path
    parent: Path | None
    trials: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """Mean of the values; None if there is none."""
        return math.fsum(self.values) / len(self.values) if self.values else None


def visited_nodes(trials: Sequence[TrialView]) -> list[Visited]:
    """Return the nodes of the trials' decisions, parents before children; running trials count as visits.

    Args:
        trials: trials of the search.
    """
    passed: dict[Path, list[TrialView]] = {(): []}
    for trial in trials:
        for depth in range(len(trial.path) + 1):
            passed.setdefault(trial.path[:depth], []).append(trial)
    nodes = [
        Visited(
            path=path,
            steps=path[-1:],
            parent=path[:-1] if path else None,
            trials=tuple(trial.number for trial in through),
            values=tuple(trial.value for trial in through if trial.has_value and trial.value is not None),
        )
        for path, through in passed.items()
    ]
    return sorted(nodes, key=lambda node: len(node.path))


def joined(nodes: Sequence[Visited]) -> list[Visited]:
    """Join each decision that always had the same answer with the one before it, so that only forks are shown.

    Args:
        nodes: nodes of the whole tree.

    Returns:
        The joined nodes, parents before children.
    """
    children: dict[Path, list[Visited]] = {}
    for node in nodes:
        if node.parent is not None:
            children.setdefault(node.parent, []).append(node)
    kept: list[Visited] = []
    waiting = [node for node in nodes if node.parent is None]
    while waiting:
        node = waiting.pop(0)
        below = children.get(node.path, [])
        while len(below) == 1 and below[0].trials == node.trials:
            node = replace(below[0], steps=node.steps + below[0].steps, parent=node.parent)
            below = children.get(node.path, [])
        kept.append(node)
        waiting += [replace(child, parent=node.path) for child in below]
    return kept


def most_visited(nodes: Sequence[Visited], limit: int) -> list[Visited]:
    """Return the most visited nodes.

    A parent has at least as many visits as its child and comes first at a tie, so that no node loses its parent.

    Args:
        nodes: nodes of the tree.
        limit: number of nodes to keep.
    """
    ranked = sorted(nodes, key=lambda node: (-len(node.trials), len(node.path)))
    return sorted(ranked[:limit], key=lambda node: len(node.path))


def draw_tree(trials: Sequence[TrialView], value_meaning: str = "reward", *, max_nodes: int = MAX_NODES) -> go.Figure:
    """Return the tree as an icicle figure from left to right, with the scale of colors below.

    Args:
        trials: trials of the search.
        value_meaning: word for the value.
        max_nodes: number of boxes to draw, the most visited ones.
    """
    import plotly.graph_objects as go

    nodes = most_visited(joined(visited_nodes(trials)), max_nodes)
    if not any(trial.path for trial in trials):
        return say_instead("No decision has been taken yet, so there is no tree.")
    low, high = value_range([node.mean for node in nodes if node.mean is not None])
    ids = {node.path: str(i) for i, node in enumerate(nodes)}
    figure = plain_figure(height=min(900, max(380, 20 * sum(not _has_child(node, nodes) for node in nodes) + 90)))
    figure.add_trace(
        go.Icicle(
            ids=[ids[node.path] for node in nodes],
            labels=[_label(node) for node in nodes],
            parents=["" if node.parent is None else ids[node.parent] for node in nodes],
            values=[len(node.trials) for node in nodes],
            branchvalues="total",
            marker={
                "colors": [GRAY if node.mean is None else color_of(node.mean, low, high) for node in nodes],
                "line": {"width": 1.5, "color": "rgba(255,255,255,0.65)"},
            },
            hovertext=[_hover(node, value_meaning) for node in nodes],
            hoverinfo="text",
            textinfo="label",
            textfont={"color": [INK if node.mean is None else ink_on(node.mean, low, high) for node in nodes]},
            leaf={"opacity": 1.0},
            tiling={"orientation": "h", "pad": 0},
            pathbar={"visible": True, "thickness": 22},
            sort=False,
        )
    )
    figure.update_layout(margin={"l": 4, "r": 4, "t": 30, "b": 56}, uniformtext={"minsize": 9, "mode": "hide"})
    _add_color_bar(figure, low, high, value_meaning)
    return figure


def _has_child(node: Visited, nodes: Sequence[Visited]) -> bool:
    return any(other.parent == node.path for other in nodes)


def _label(node: Visited) -> str:
    words = [_answer(question, answer) for question, answer in node.steps]
    return escape(" › ".join(["all trials", *words] if node.parent is None else words))


def _answer(question: str, answer: str) -> str:
    """Return the answer, with its question if the answer alone ("none", a number) says nothing."""
    tells = answer != "none" and not answer.replace(".", "").isdigit()
    return answer if tells else f"{_asked(question).rsplit('.', 1)[-1]}: {answer}"


def _asked(question: str) -> str:
    """Return a decision's name without the options that it may list in brackets."""
    return question.split("(", 1)[0]


def _hover(node: Visited, value_meaning: str) -> str:
    lines = [f"{escape(_asked(question))} = <b>{escape(answer)}</b>" for question, answer in node.path]
    lines.append(f"visits: {len(node.trials)}, with a value: {len(node.values)}")
    if node.mean is not None:
        lines.append(f"mean {escape(value_meaning)}: {node.mean:.4g}, best: {max(node.values):.4g}")
    if len(node.trials) <= 8:
        lines.append("trials: " + ", ".join(map(str, node.trials)))
    return "<br>".join(lines)


def _add_color_bar(figure: go.Figure, low: float, high: float, value_meaning: str) -> None:
    """Add the scale through a trace without points: boxes with own colors bring no bar."""
    import plotly.graph_objects as go

    if high <= low:
        return
    title = f"mean {escape(value_meaning)} (gray: no finished trial)"
    bar = {
        "orientation": "h", "thickness": 10, "len": 0.5, "x": 0.5, "y": -0.02, "yanchor": "top",
        "title": {"text": title, "side": "bottom", "font": {"size": 12}},
        "outlinewidth": 0,
    }  # fmt: skip
    marker = {"color": [low], "cmin": low, "cmax": high, "colorscale": color_scale(), "showscale": True}
    figure.add_trace(
        go.Scatter(x=[None], y=[None], mode="markers", marker=marker | {"colorbar": bar}, hoverinfo="skip",
                   showlegend=False)
    )  # fmt: skip
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
