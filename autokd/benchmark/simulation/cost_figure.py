"""What a search gains at what cost, as one SVG: a line a strategy, the mean over recorded pairs against its budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from autokd.benchmark.simulation.figure import COLORS

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 360, 64, 40, 190, 52
"""Size of the picture and its margins, in px."""
_STYLE = """\
<style>
  text{fill:#334155} .grid{stroke:#cbd5e1} .paper{fill:#ffffff}
  @media (prefers-color-scheme: dark){text{fill:#cbd5e1} .grid{stroke:#334155} .paper{fill:#0f172a}}
</style>"""


def cost_svg(gains: Mapping[str, Mapping[float, float]], fixed: Mapping[str, float], title: str) -> str:
    """Draw the gains of strategies against the cost of a search; light and dark, as the reader's system is.

    Args:
        gains: strategy -> budget in full trainings -> gain in test AP, 0 to 1.
        fixed: name -> a gain that no budget changes, drawn as a dashed line.
        title: title of the picture.

    Returns:
        Text of an SVG document.
    """
    budgets = sorted({budget for of_one in gains.values() for budget in of_one})
    values = [*fixed.values(), *(value for of_one in gains.values() for value in of_one.values())]
    low, high = _limits(values)
    parts = _axes(budgets, low, high, title)
    ends = []
    for i, (name, of_one) in enumerate(gains.items()):
        points = [(_x(b, budgets), _y(of_one[b], low, high)) for b in sorted(of_one)]
        color = COLORS[i % len(COLORS)]
        parts.append(
            f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" fill="none" stroke="{color}" '
            f'stroke-width="{3 if i == 0 else 1.6}"/>'
        )
        ends.append((points[-1][1], name, color))
    for name, value in fixed.items():
        y = _y(value, low, high)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid" stroke-dasharray="5 4" '
            'stroke-width="1.6"/>'
        )
        ends.append((y, name, "#94a3b8"))
    parts += _labels(ends)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" '
        f'font-size="12">\n<title>{escape(title)}</title>\n{_STYLE}\n<rect width="100%" height="100%" class="paper"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Whole points of AP around the values."""
    low, high = math.floor(100 * min(values)), math.ceil(100 * max(values))
    return low / 100, max(high, low + 1) / 100


def _x(budget: float, budgets: Sequence[float]) -> float:
    """A budget's place; twice the cost is the same way everywhere."""
    span = math.log(budgets[-1] / budgets[0]) or 1.0
    return LEFT + (WIDTH - LEFT - RIGHT) * math.log(budget / budgets[0]) / span


def _y(value: float, low: float, high: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)


def _axes(budgets: Sequence[float], low: float, high: float, title: str) -> list[str]:
    parts = [f'<text x="{LEFT}" y="22" font-weight="bold">{escape(title)}</text>']
    step = max(1, math.ceil((high - low) * 100 / 6))
    for point in range(round(100 * low), round(100 * high) + 1, step):
        y = _y(point / 100, low, high)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{point:+d}</text>')
    bottom = HEIGHT - BOTTOM
    parts += [f'<text x="{_x(b, budgets):.1f}" y="{bottom + 18}" text-anchor="middle">{b:g}</text>' for b in budgets]
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">cost of the search in full trainings</text>'
    )
    y = (TOP + bottom) / 2
    parts.append(
        f'<text x="18" y="{y}" text-anchor="middle" transform="rotate(-90 18 {y})">test AP over no distillation</text>'
    )
    return parts


def _labels(ends: Sequence[tuple[float, str, str]]) -> list[str]:
    """Names at the lines' ends, moved apart where lines end together."""
    parts, free = [], 0.0
    for y, name, color in sorted(ends):
        free = max(y, free + 15)
        x = WIDTH - RIGHT + 8
        parts.append(
            f'<line x1="{x}" x2="{x + 14}" y1="{free:.1f}" y2="{free:.1f}" stroke="{color}" stroke-width="3"/>'
        )
        parts.append(f'<text x="{x + 20}" y="{free + 4:.1f}">{escape(name)}</text>')
    return parts
