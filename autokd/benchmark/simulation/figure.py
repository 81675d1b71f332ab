"""The comparison as one SVG: regret by trials above, the share of searches that have found the top below.

Drawn by hand: a page of plotly's carries four megabytes of script, and plotly's pictures need another package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from xml.sax.saxutils import escape

COLORS = ("#16a34a", "#94a3b8", "#2563eb", "#f59e0b", "#7c3aed", "#ec4899", "#0891b2", "#84cc16")
WIDTH, HEIGHT, LEFT, TOP, GAP_X, GAP_Y = 300, 190, 60, 60, 60, 70
"""Size of a panel, margins of the picture, and gaps between panels, in px."""

Point = tuple[float, float]


def comparison_svg(report: dict[str, Any]) -> str:
    """Draw a comparison: a column of two panels for each number of workers.

    Args:
        report: what ``comparison.compare_samplers`` returns.

    Returns:
        Text of an SVG document.
    """
    rows, cap = report["rows"], report["settings"]["trials"]
    samplers = list(dict.fromkeys(row["sampler"] for row in rows))
    color = {name: COLORS[i % len(COLORS)] for i, name in enumerate(samplers)}
    all_workers = list(dict.fromkeys(row["workers"] for row in rows))
    # The first four trials' regret would stretch the axis so far that the lines after them could not be told apart.
    greatest = max(high for row in rows for _, high in row["curve_95"][4:]) or 1.0
    trials = {(r["sampler"], r["workers"]): zip(r["found_full"], r["trials_full"]) for r in report["repeats"]}
    parts = []
    for column, workers in enumerate(all_workers):
        x = LEFT + column * (WIDTH + GAP_X)
        here = [row for row in rows if row["workers"] == workers]
        num = len(here[0]["curve"])
        title = f"{workers} worker{'s' if workers > 1 else ''}"
        upper = _Panel(x, TOP, (1, num), (0.0, greatest))
        parts += upper.frame(title, "regret (AP)" if column == 0 else "")
        lower = _Panel(x, TOP + HEIGHT + GAP_Y, (1, cap), (0.0, 1.0))
        parts += lower.frame("", "found a top spec" if column == 0 else "", "trials")
        for row in here:
            band = row["curve_95"]
            upper_edge = [(n, high) for n, (_, high) in enumerate(band, 1)]
            lower_edge = [(n, low) for n, (low, _) in enumerate(band, 1)]
            parts.append(upper.area([*upper_edge, *reversed(lower_edge)], color[row["sampler"]]))
            parts.append(upper.line(list(enumerate(row["curve"], 1)), color[row["sampler"]]))
            hits = [n for is_found, n in trials[row["sampler"], workers] if is_found]
            parts.append(lower.line(_steps(hits, row["repeats"], row["cap"]), color[row["sampler"]]))
    width = LEFT + len(all_workers) * (WIDTH + GAP_X)
    height = TOP + 2 * HEIGHT + GAP_Y + 50
    parts += _legend(samplers, color)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


class _Panel:
    """Axes with their scales; ``domain`` and ``range_`` are (low, high) of x and y in data units."""

    def __init__(self, x: float, y: float, domain: tuple[float, float], range_: tuple[float, float]) -> None:
        self._x, self._y, self._domain, self._range = x, y, domain, range_
        self._to_x = _scale(domain, (x, x + WIDTH))
        self._to_y = _scale(range_, (y + HEIGHT, y))

    def frame(self, title: str, y_label: str, x_label: str = "") -> list[str]:
        """Draw the box, its ticks and labels."""
        x, y = self._x, self._y
        parts = [f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#cbd5e1"/>']
        parts.append(_text(x + WIDTH / 2, y - 8, title, "middle"))
        parts.append(_text(x + WIDTH / 2, y + HEIGHT + 34, x_label, "middle"))
        if y_label:
            turned = f'transform="rotate(-90 {x - 46} {y + HEIGHT / 2})"'
            parts.append(_text(x - 46, y + HEIGHT / 2, y_label, "middle", turned))
        for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
            at_x = self._domain[0] + fraction * (self._domain[1] - self._domain[0])
            at_y = self._range[0] + fraction * (self._range[1] - self._range[0])
            parts.append(_text(self._to_x(at_x), y + HEIGHT + 16, f"{at_x:.0f}", "middle"))
            parts.append(_text(x - 5, self._to_y(at_y) + 4, f"{at_y:.2g}", "end"))
        return parts

    def line(self, points: Sequence[Point], color: str) -> str:
        """Draw a line through points in data units."""
        return f'<polyline points="{self._points(points)}" fill="none" stroke="{color}" stroke-width="1.8"/>'

    def area(self, points: Sequence[Point], color: str) -> str:
        """Fill the polygon of points in data units."""
        return f'<polygon points="{self._points(points)}" fill="{color}" fill-opacity="0.15" stroke="none"/>'

    def _points(self, points: Sequence[Point]) -> str:
        low, high = self._range
        return " ".join(f"{self._to_x(x):.1f},{self._to_y(min(max(y, low), high)):.1f}" for x, y in points)


def _steps(hits: Sequence[int], num_repeats: int, cap: int) -> list[Point]:
    """Return the share of all repeats that had found a top spec by each number of trials."""
    return [(n, sum(hit <= n for hit in hits) / num_repeats) for n in range(1, cap + 1)]


def _scale(source: tuple[float, float], target: tuple[float, float]) -> Callable[[float], float]:
    factor = (target[1] - target[0]) / ((source[1] - source[0]) or 1.0)
    return lambda value: target[0] + (value - source[0]) * factor


def _text(x: float, y: float, text: str, anchor: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#334155" {extra}>{escape(text)}</text>'


def _legend(samplers: Sequence[str], color: dict[str, str]) -> list[str]:
    parts = []
    for i, name in enumerate(samplers):
        x = LEFT + 130 * i
        parts.append(f'<line x1="{x}" y1="22" x2="{x + 24}" y2="22" stroke="{color[name]}" stroke-width="3"/>')
        parts.append(_text(x + 30, 26, name, "start"))
    return parts
