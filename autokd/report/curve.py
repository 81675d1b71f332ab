"""The search curve: the value of each trial, the best so far, and the trials without a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autokd.report.style import AMBER, BLUE, GRAY, GREEN, RED, VIOLET, escape, plain_figure, say_instead, wrap
from autokd.report.view import TrialView

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_DETAILED = 500
"""Number of trials above which a point shows its number and value only, so that the figure stays small."""


def search_curve(
    trials: Sequence[TrialView],
    *,
    direction: str = "maximize",
    value_meaning: str = "reward",
    none_value: float | None = None,
) -> go.Figure:
    """Return the figure of value against trial number; trials without a value are drawn at its lower edge.

    Args:
        trials: trials of the search.
        direction: "maximize", or "minimize" if a less value is better.
        value_meaning: word for the value.
        none_value: value of the training without distillation, drawn as a line; None: no line.
    """
    import plotly.graph_objects as go

    if not trials:
        return say_instead("No trial has been started yet.")
    figure = plain_figure(380)
    is_detailed = len(trials) <= MAX_DETAILED
    if none_value is not None:
        figure.add_hline(
            y=none_value, line={"color": GRAY, "dash": "dot", "width": 1.5},
            annotation_text="no distillation", annotation_position="bottom right",
        )  # fmt: skip
    best = best_so_far(trials, direction)
    if best:
        figure.add_trace(
            go.Scatter(
                x=[number for number, _ in best], y=[value for _, value in best], name="best so far", mode="lines",
                line={"shape": "hv", "color": GREEN, "width": 2}, hoverinfo="skip",
            )
        )  # fmt: skip
    for name, kept, marker in _groups(trials):
        shown = [trial for trial in kept if trial.value is not None]
        if shown:
            figure.add_trace(_points(name, shown, [trial.value for trial in shown], marker, is_detailed))
    floor = _floor(trials)
    for name, status, marker in (
        ("failed", "failed", {"symbol": "x", "color": RED, "size": 9}),
        ("running", "running", {"symbol": "hourglass-open", "color": GRAY, "size": 9}),
        ("pruned before any value", "pruned", {"symbol": "line-ns-open", "color": VIOLET, "size": 9}),
    ):
        kept = [trial for trial in trials if trial.status == status and trial.value is None]
        if kept:
            figure.add_trace(_points(name, kept, [floor] * len(kept), marker, is_detailed))
    last = max(trial.number for trial in trials)
    figure.update_xaxes(title_text="trial", range=[-0.04 * last - 0.6, 1.02 * last + 0.6])
    figure.update_yaxes(title_text=escape(value_meaning))
    figure.update_layout(showlegend=True)
    return figure


def best_so_far(trials: Sequence[TrialView], direction: str = "maximize") -> list[tuple[int, float]]:
    """Return (trial number, best value up to it) for each finished trial with a value.

    Args:
        trials: trials of the search.
        direction: "maximize" or "minimize".
    """
    better = min if direction == "minimize" else max
    steps: list[tuple[int, float]] = []
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.has_value and trial.value is not None:
            value = better(steps[-1][1], trial.value) if steps else trial.value
            steps.append((trial.number, value))
    return steps


def _groups(trials: Sequence[TrialView]) -> list[tuple[str, list[TrialView], dict[str, Any]]]:
    """Split the trials that may have a value into kinds, each with its marker."""
    valued = [trial for trial in trials if trial.has_value]
    reused = [trial for trial in valued if trial.reused_from is not None]
    fresh = [trial for trial in valued if trial.reused_from is None]
    return [
        ("searched", [t for t in fresh if not t.preset], {"color": BLUE, "size": 8}),
        ("enqueued preset", [t for t in fresh if t.preset], {"color": AMBER, "size": 11, "symbol": "diamond"}),
        ("reused", reused, {"color": BLUE, "size": 8, "symbol": "circle-open", "line": {"width": 1.5}}),
        (
            "pruned",
            [t for t in trials if t.status == "pruned"],
            {"color": VIOLET, "size": 8, "symbol": "triangle-down-open"},
        ),
    ]


def _points(
    name: str, trials: Sequence[TrialView], values: Sequence[float | None], marker: dict[str, Any], is_detailed: bool
) -> go.Scatter:
    import plotly.graph_objects as go

    named = any(trial.preset for trial in trials) and name == "enqueued preset"
    return go.Scatter(
        x=[trial.number for trial in trials],
        y=list(values),
        name=name,
        mode="markers+text" if named else "markers",
        text=[escape(trial.preset) for trial in trials] if named else None,
        textposition=["top center" if i % 2 else "bottom center" for i in range(len(trials))],
        marker=marker,
        hovertext=[_hover(trial) for trial in trials] if is_detailed else None,
        hoverinfo="text" if is_detailed else "x+y",
        cliponaxis=False,
    )


def _hover(trial: TrialView) -> str:
    lines = [f"<b>trial {trial.number}</b> {escape(trial.preset)}".rstrip()]
    if trial.value is not None:
        lines.append(f"value {trial.value:.5g}")
    lines += [f"{escape(name)} {value:.5g}" for name, value in sorted(trial.metrics.items())]
    if trial.reused_from is not None:
        lines.append(f"value of trial {trial.reused_from}, which had the same distiller")
    if trial.cause:
        lines.append(f"failed: <b>{escape(trial.cause)}</b>")
    if trial.message:
        lines.append(wrap(trial.message[:240]))
    if trial.formula:
        lines.append(wrap(trial.formula))
    return "<br>".join(lines)


def _floor(trials: Sequence[TrialView]) -> float:
    """Return a value a little below the least, at which trials without a value are drawn."""
    values = [trial.value for trial in trials if trial.has_value and trial.value is not None]
    if not values:
        return 0.0
    low, high = min(values), max(values)
    return low - 0.08 * ((high - low) or abs(low) or 1.0)
