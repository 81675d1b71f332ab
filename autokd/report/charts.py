"""Figures of a finished run: AP of each entry, AP by class, and the proxy's reward against AP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autokd.jobs import NO_DISTILLATION, SEARCHED
from autokd.report.statistics import finite, student_t, summarize
from autokd.report.style import AMBER, BLUE, GRAY, GREEN, VIOLET, escape, plain_figure, say_instead
from autokd.report.view import EntryView, FidelityPoint, ReportData

if TYPE_CHECKING:
    import plotly.graph_objects as go

_PRESET_COLORS = (BLUE, VIOLET, "#06b6d4", "#ec4899", "#84cc16", "#f97316")


def entry_colors(entries: Sequence[EntryView]) -> dict[str, str]:
    """Return one color a name, the same in every figure: gray for none, green for the searched one."""
    presets = [entry.name for entry in entries if entry.name not in (NO_DISTILLATION, SEARCHED)]
    colors = {name: _PRESET_COLORS[i % len(_PRESET_COLORS)] for i, name in enumerate(presets)}
    return {NO_DISTILLATION: GRAY, SEARCHED: GREEN} | colors


def results_figure(data: ReportData) -> go.Figure:
    """Return each entry's mean AP with its 95% interval, a dot for each seed, and the teacher as a line."""
    import plotly.graph_objects as go

    rated = [(entry, summary) for entry in data.entries if (summary := summarize(entry.test_ap)) is not None]
    if not rated:
        return say_instead("No full training has finished.")
    rated.sort(key=lambda pair: pair[1].mean)
    colors = entry_colors(data.entries)
    figure = plain_figure(height=90 + 44 * len(rated))
    for entry, summary in rated:
        half = None
        if summary.deviation is not None:
            half = student_t(summary.count - 1) * summary.deviation / math.sqrt(summary.count)
        seeds = finite(entry.test_ap)
        figure.add_trace(
            go.Scatter(
                x=seeds, y=[escape(entry.name)] * len(seeds), mode="markers", hoverinfo="x+y",
                marker={"color": colors[entry.name], "size": 8, "opacity": 0.45}, showlegend=False,
            )
        )  # fmt: skip
        bars = None if half is None else {"type": "data", "array": [half], "thickness": 2, "width": 6}
        figure.add_trace(
            go.Scatter(
                x=[summary.mean], y=[escape(entry.name)], mode="markers+text", text=[f"{summary.mean:.4f}"],
                textposition="top center", error_x=bars, showlegend=False, cliponaxis=False,
                marker={"color": colors[entry.name], "size": 13, "symbol": "diamond"},
                hovertext=[_interval_words(entry.name, summary.mean, half, summary.count)], hoverinfo="text",
            )
        )  # fmt: skip
    if data.teacher.test_ap is not None:
        figure.add_vline(x=data.teacher.test_ap, line={"color": AMBER, "dash": "dot", "width": 2})
        figure.add_annotation(
            x=data.teacher.test_ap, y=1, yref="paper", yanchor="bottom", showarrow=False,
            xanchor="right" if data.teacher.test_ap > rated[-1][1].mean else "left",
            text=f"teacher {data.teacher.test_ap:.4f}",
        )  # fmt: skip
    figure.update_xaxes(title_text=f"COCO AP on {data.judged_on}")
    figure.update_yaxes(showgrid=False, range=[-0.6, len(rated) - 0.35])
    return figure


def per_class_figure(data: ReportData) -> go.Figure:
    """Return the mean AP of each class, a mark for each entry; classes without ground truth are left out."""
    import plotly.graph_objects as go

    entries = [entry for entry in data.entries if entry.per_class]
    names = class_names(data)
    if not entries or not names:
        return say_instead("AP by class was not recorded.")
    colors = entry_colors(data.entries)
    figure = plain_figure(height=110 + 30 * len(names))
    for entry in entries:
        means = {name: summarize(values) for name, values in entry.per_class.items()}
        shown = [(name, summary) for name in names if (summary := means.get(name)) is not None]
        is_searched = entry.name == SEARCHED
        figure.add_trace(
            go.Scatter(
                x=[summary.mean for _, summary in shown], y=[escape(name) for name, _ in shown],
                name=escape(entry.name), mode="markers", hoverinfo="x+y+name",
                marker={"color": colors[entry.name], "size": 13 if is_searched else 10,
                        "symbol": "diamond" if is_searched else "circle", "opacity": 0.9},
            )
        )  # fmt: skip
    teacher = [(name, data.teacher_per_class[name]) for name in names if name in data.teacher_per_class]
    if teacher:
        figure.add_trace(
            go.Scatter(
                x=[value for _, value in teacher], y=[escape(name) for name, _ in teacher], name="teacher",
                mode="markers", hoverinfo="x+y+name",
                marker={"color": AMBER, "size": 16, "symbol": "line-ns-open", "line": {"width": 2}},
            )
        )  # fmt: skip
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title_text=f"COCO AP on {data.judged_on}, mean over seeds", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=[escape(name) for name in names])
    return figure


def class_names(data: ReportData) -> list[str]:
    """Return the classes with a value in any entry, in the order in which they were given."""
    names: dict[str, None] = {}
    for entry in data.entries:
        names |= {name: None for name, values in entry.per_class.items() if summarize(values) is not None}
    return list(names)


def fidelity_figure(points: Sequence[FidelityPoint], value_meaning: str = "reward") -> go.Figure:
    """Return the proxy's value against the full training's val AP, a point a distiller."""
    import plotly.graph_objects as go

    if not points:
        return say_instead("No distiller was trained both by the proxy and in full.")
    figure = plain_figure(360)
    colors = {SEARCHED: GREEN, NO_DISTILLATION: GRAY}
    figure.add_trace(
        go.Scatter(
            x=[point.proxy_value for point in points], y=[point.full_val_ap for point in points],
            mode="markers+text", text=[escape(point.name) for point in points], textposition="top center",
            marker={"color": [colors.get(point.name, BLUE) for point in points], "size": 11},
            hovertemplate="%{text}<br>proxy %{x:.4g}<br>full val AP %{y:.4f}<extra></extra>", cliponaxis=False,
        )
    )  # fmt: skip
    figure.update_xaxes(title_text=f"proxy: {escape(value_meaning)}")
    figure.update_yaxes(title_text="full training: mean val AP")
    return figure


def _interval_words(name: str, mean: float, half: float | None, count: int) -> str:
    if half is None:
        return f"{escape(name)}: {mean:.4f} (one seed: no interval)"
    return f"{escape(name)}: {mean:.4f} ± {half:.4f} (95% interval of the mean, {count} seeds)"
