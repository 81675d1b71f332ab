"""The picture of ``autokd compare``: search curves, and test AP of the entries, as a PNG drawn by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autokd.report.run_comparison import RunComparison, mean_of
from autokd.report.statistics import finite

if TYPE_CHECKING:
    from PIL import ImageDraw

WIDTH, HEIGHT, MARGIN, LEGEND = 1200, 520, 60, 26
INK, GRID = (30, 41, 59), (203, 213, 225)
COLORS = ((37, 99, 235), (234, 88, 12), (22, 163, 74), (124, 58, 237), (219, 39, 119), (8, 145, 178))


@dataclass(frozen=True)
class _Axes:
    """A frame of the picture and the values that it shows: px = x0 + (value - low) / (high - low) * (x1 - x0)."""

    frame: tuple[int, int, int, int]
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a point."""
        x0, y0, x1, y1 = self.frame
        (x_low, x_high), (y_low, y_high) = self.x_range, self.y_range
        return x0 + (x - x_low) / (x_high - x_low) * (x1 - x0), y1 - (y - y_low) / (y_high - y_low) * (y1 - y0)


def draw_comparison(found: RunComparison, path: Path) -> None:
    """Draw the best reward by the number of trials, and the test AP of every entry and seed.

    Args:
        found: the runs.
        path: PNG file to write.
    """
    from PIL import Image, ImageDraw, ImageFont

    bottom = HEIGHT + LEGEND * len(found.runs)
    canvas = Image.new("RGB", (WIDTH, bottom + 10), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=14)
    middle = WIDTH // 2
    _draw_curves(draw, font, found, (MARGIN, 40, middle - 30, HEIGHT - MARGIN))
    _draw_entries(draw, font, found, (middle + MARGIN, 40, WIDTH - 30, HEIGHT - MARGIN))
    for number, run in enumerate(found.runs):
        y = HEIGHT + LEGEND * number
        draw.rectangle((MARGIN, y + 4, MARGIN + 14, y + 18), fill=_color(number))
        draw.text((MARGIN + 24, y + 2), run.name, fill=INK, font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, "PNG")


def _draw_curves(draw: ImageDraw.ImageDraw, font: Any, found: RunComparison, frame: tuple[int, int, int, int]) -> None:
    curves = [run.best_so_far for run in found.runs]
    axes = _axes(draw, font, frame, "best reward by trial", [value for curve in curves for value in curve])
    longest = max((len(curve) for curve in curves), default=1)
    axes = _Axes(axes.frame, (1.0, float(max(2, longest))), axes.y_range)
    for number, curve in enumerate(curves):
        points = [axes.at(trial, value) for trial, value in enumerate(curve, start=1)]
        if len(points) > 1:
            draw.line(points, fill=_color(number), width=3)
        for x, y in points[-1:]:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=_color(number))
    draw.text((frame[2] - 20, frame[3] + 8), str(longest), fill=INK, font=font)


def _draw_entries(draw: ImageDraw.ImageDraw, font: Any, found: RunComparison, frame: tuple[int, int, int, int]) -> None:
    names = list(dict.fromkeys(name for run in found.runs for name in run.entries))
    values = [value for run in found.runs for entry in run.entries.values() for value in finite(entry.test_ap)]
    axes = _axes(draw, font, frame, "test AP: mean, and each seed", values)
    axes = _Axes(axes.frame, (0.0, float(max(1, len(names)))), axes.y_range)
    for place, name in enumerate(names):
        for number, run in enumerate(found.runs):
            entry = run.entries.get(name)
            x = place + (number + 1) / (len(found.runs) + 1)
            mean = mean_of(entry) if entry is not None else None
            if entry is None or mean is None:
                continue
            px, py = axes.at(x, mean)
            draw.line((px - 10, py, px + 10, py), fill=_color(number), width=4)
            for value in finite(entry.test_ap):
                sx, sy = axes.at(x, value)
                draw.ellipse((sx - 3, sy - 3, sx + 3, sy + 3), outline=_color(number), width=2)
        px, _ = axes.at(place + 0.5, axes.y_range[0])
        draw.text((px - 4 * len(name[:14]), frame[3] + 8), name[:14], fill=INK, font=font)


def _axes(
    draw: ImageDraw.ImageDraw, font: Any, frame: tuple[int, int, int, int], title: str, values: Sequence[float]
) -> _Axes:
    """Draw title, frame and five lines of the vertical axis; return axes of these values."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = (high - low) * 0.08 or 0.05
    axes = _Axes(frame, (0.0, 1.0), (low - room, high + room))
    draw.text((frame[0], 12), title, fill=INK, font=font)
    for step in range(5):
        value = axes.y_range[0] + (axes.y_range[1] - axes.y_range[0]) * step / 4
        _, y = axes.at(0.0, value)
        draw.line((frame[0], y, frame[2], y), fill=GRID)
        draw.text((frame[0] - 54, y - 8), f"{value:.3f}", fill=INK, font=font)
    if not values:
        draw.text(((frame[0] + frame[2]) // 2 - 40, (frame[1] + frame[3]) // 2), "no values yet", fill=INK, font=font)
    return axes


def _color(number: int) -> tuple[int, int, int]:
    return COLORS[number % len(COLORS)]
