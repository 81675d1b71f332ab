"""Small figures as SVG that need no script: intervals of the results, lines over epochs. Colors come from the page."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from autokd.report.statistics import finite, student_t, summarize
from autokd.report.view import EntryView

_LEFT, _WIDTH, _RIGHT = 150, 640, 60
_ROW = 30


def intervals_svg(entries: Sequence[EntryView], teacher_ap: float | None, judged_on: str = "test") -> str:
    """Return mean AP of each entry with its 95% interval and a dot a seed; empty text without values.

    Args:
        entries: rows of the results.
        teacher_ap: AP of the teacher, a line; None: not known.
        judged_on: split of the values.
    """
    rated = [(entry, summary) for entry in entries if (summary := summarize(entry.test_ap)) is not None]
    if not rated:
        return ""
    rated.sort(key=lambda pair: -pair[1].mean)
    halves = [
        0.0 if s.deviation is None else student_t(s.count - 1) * s.deviation / math.sqrt(s.count) for _, s in rated
    ]
    values = [value for entry, _ in rated for value in finite(entry.test_ap)]
    values += [s.mean + sign * half for (_, s), half in zip(rated, halves, strict=True) for sign in (-1, 1)]
    values += [teacher_ap] if teacher_ap is not None else []
    low, high = min(values), max(values)
    scale = _Scale(low, high)
    rows = [_row(i, entry, s.mean, half, scale) for i, ((entry, s), half) in enumerate(zip(rated, halves, strict=True))]
    height = _ROW * len(rated) + 34
    teacher = "" if teacher_ap is None else _teacher(scale(teacher_ap), height, teacher_ap)
    ticks = "".join(_tick(scale(value), height, value) for value in scale.ticks())
    words = "; ".join(f"{entry.name} {s.mean:.4f}" for entry, s in rated)
    return (
        f'<svg class="intervals" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" role="img" '
        f'aria-label="Mean {judged_on} AP with 95% intervals: {html.escape(words)}">'
        f"{ticks}{teacher}{''.join(rows)}</svg>"
    )


def lines_svg(
    series: Mapping[str, Sequence[tuple[float, float]]], words: str, low: float = 0.0, high: float = 1.0
) -> str:
    """Return lines over epochs, named at their ends; empty text without points.

    Args:
        series: name -> points (epoch, value).
        words: what is shown, for those who do not see it.
        low, high: range of the values.
    """
    points = [point for line in series.values() for point in line]
    if not points:
        return ""
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    width, height, left = 520, 180, 44

    def at(x: float, y: float) -> tuple[float, float]:
        share = 0.5 if last == first else (x - first) / (last - first)
        return left + share * width, 10 + (1 - (y - low) / ((high - low) or 1.0)) * height

    drawn = [_line(i, name, [at(*point) for point in line]) for i, (name, line) in enumerate(series.items())]
    axis = "".join(
        f'<text x="{left - 6}" y="{at(first, y)[1] + 4:.0f}" text-anchor="end">{y:g}</text>'
        f'<line x1="{left}" x2="{left + width}" y1="{at(first, y)[1]:.1f}" y2="{at(first, y)[1]:.1f}" class="grid"/>'
        for y in (low, (low + high) / 2, high)
    )
    epochs = f'<text x="{left}" y="{height + 30}">epoch {first:g}</text>'
    epochs += f'<text x="{left + width}" y="{height + 30}" text-anchor="end">{last:g}</text>'
    return (
        f'<svg class="lines" viewBox="0 0 {left + width + 130} {height + 40}" role="img" '
        f'aria-label="{html.escape(words)}">{axis}{epochs}{"".join(drawn)}</svg>'
    )


class _Scale:
    """Values to pixels, with a margin of 5%."""

    def __init__(self, low: float, high: float) -> None:
        margin = 0.05 * ((high - low) or abs(low) or 1.0)
        self.low, self.high = low - margin, high + margin

    def __call__(self, value: float) -> float:
        return _LEFT + (value - self.low) / (self.high - self.low) * _WIDTH

    def ticks(self) -> list[float]:
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
        step = next(each for each in (step / 5, step / 2, step, 2 * step) if (self.high - self.low) / each <= 9)
        return [k * step for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _row(i: int, entry: EntryView, mean: float, half: float, scale: _Scale) -> str:
    y = 14 + _ROW * i
    kind = {"none": "none", "searched": "searched"}.get(entry.name, "preset")
    dots = "".join(f'<circle cx="{scale(v):.1f}" cy="{y}" r="3.5" class="seed"/>' for v in finite(entry.test_ap))
    bar = f'<line x1="{scale(mean - half):.1f}" x2="{scale(mean + half):.1f}" y1="{y}" y2="{y}" class="bar"/>'
    diamond = f'<path d="M{scale(mean):.1f} {y - 7}l7 7l-7 7l-7 -7z"/>'
    name = f'<text x="{_LEFT - 10}" y="{y + 5}" text-anchor="end">{html.escape(entry.name[:20])}</text>'
    number = f'<text x="{_LEFT + _WIDTH + 6}" y="{y + 5}">{mean:.4f}</text>'
    return f'<g class="{kind}">{name}{bar if half else ""}{dots}{diamond}{number}</g>'


def _tick(x: float, height: int, value: float) -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 22}" class="grid"/>'
        f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{value:.4g}</text>'
    )


def _teacher(x: float, height: int, value: float) -> str:
    return (
        f'<g class="teacher"><line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 22}"><title>teacher {value:.4f}'
        "</title></line></g>"
    )


def _line(i: int, name: str, points: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    dots = "".join(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in points)
    label = f'<text x="{x + 8:.0f}" y="{y + 4:.0f}">{html.escape(name[:18])}</text>'
    return f'<g class="line-{i % 6}"><polyline points="{path}"/>{dots}{label}</g>'
