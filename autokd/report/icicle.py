"""The tree of a search as data for a page that draws, opens and colors it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autokd.report.statistics import student_t
from autokd.report.tree import Path, Visited, joined, most_visited, visited_nodes
from autokd.report.view import TrialView

MAX_NODES = 1500
"""Number of nodes that a page gets, the most visited ones."""
MAX_LISTED = 6
"""Trials of a node up to which they are listed."""


def icicle_data(trials: Sequence[TrialView], max_nodes: int = MAX_NODES) -> list[dict[str, Any]]:
    """Return the nodes of the tree, parents first, the root at index 0.

    Args:
        trials: trials of the search.
        max_nodes: number of nodes.

    Returns:
        For each node its ``parent`` (an index; -1: the root), ``label``, ``question``, ``visits``, ``mean``, ``best``,
        what the choice adds (``gain`` with ``low`` and ``high``, see ``choice_gain``), and ``trials`` if they are few.
    """
    nodes = most_visited(joined(visited_nodes(trials)), max_nodes)
    places = {node.path: i for i, node in enumerate(nodes)}
    parents = {node.path: nodes[places[node.parent]] for node in nodes if node.parent is not None}
    return [_node(node, parents.get(node.path), places) for node in nodes]


def choice_gain(
    chosen: Sequence[float], all_values: Sequence[float]
) -> tuple[float, float | None, float | None] | None:
    """Return what a choice adds: mean value with it minus mean value with its alternatives, and the 95% interval.

    Welch's t interval: the two groups have different sizes and spreads. The trials below a choice differ in much else
    and were not drawn at random, so the interval says how firm the difference is, not that the choice causes it.

    Args:
        chosen: values of the trials with the choice.
        all_values: values of all trials that had to choose, those of ``chosen`` included.

    Returns:
        Difference, lower and upper end (None with fewer than two values on a side); None if a side has no value.
    """
    n, others = len(chosen), len(all_values) - len(chosen)
    if n == 0 or others == 0:
        return None
    mean = math.fsum(chosen) / n
    rest_mean = (math.fsum(all_values) - math.fsum(chosen)) / others
    if n < 2 or others < 2:
        return mean - rest_mean, None, None
    squares = math.fsum((value - mean) ** 2 for value in chosen)
    all_squares = math.fsum((value - rest_mean) ** 2 for value in all_values)
    rest_squares = max(0.0, all_squares - math.fsum((value - rest_mean) ** 2 for value in chosen))
    a, b = squares / (n - 1) / n, rest_squares / (others - 1) / others
    if a + b == 0.0:
        return mean - rest_mean, mean - rest_mean, mean - rest_mean
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (others - 1))
    half = student_t(max(1, int(freedom))) * math.sqrt(a + b)
    return mean - rest_mean, mean - rest_mean - half, mean - rest_mean + half


def _node(node: Visited, parent: Visited | None, places: dict[Path, int]) -> dict[str, Any]:
    gain = None if parent is None else choice_gain(node.values, parent.values)
    data: dict[str, Any] = {
        "parent": -1 if parent is None else places[parent.path],
        "label": " › ".join(_word(question, answer) for question, answer in node.steps) or "all trials",
        "question": ", ".join(question.split("(", 1)[0] for question, _ in node.steps),
        "visits": len(node.trials),
        "mean": _rounded(node.mean),
        "best": _rounded(max(node.values, default=None)),
    }
    if gain is not None:
        data |= dict(zip(("gain", "low", "high"), map(_rounded, gain), strict=True))
    if len(node.trials) <= MAX_LISTED:
        data["trials"] = list(node.trials)
    return data


def _word(question: str, answer: str) -> str:
    """Return an answer, with its question if the answer alone ("none", a number) says nothing."""
    says_enough = answer != "none" and not answer.replace(".", "").isdigit()
    return answer if says_enough else f"{question.split('(', 1)[0].rsplit('.', 1)[-1]}: {answer}"


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
