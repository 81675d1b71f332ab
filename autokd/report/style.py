"""The style that all figures share, legible on a light and on a dark page.

Figures have no background of their own and text of a neutral color; the page and the dashboard color the rest.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

BLUE = "#3b82f6"
AMBER = "#f59e0b"
RED = "#ef4444"
GREEN = "#10b981"
VIOLET = "#8b5cf6"
GRAY = "#8b93a1"
INK = "#101722"
CLEAR = "rgba(0,0,0,0)"

_SCALE = ((0.0, (59, 76, 138)), (0.5, (44, 160, 160)), (1.0, (250, 204, 60)))
"""Low to high: indigo, teal, gold; the lightness alone distinguishes them as well."""


def plain_figure(height: int = 360) -> go.Figure:
    """Return an empty figure in the shared look. ``height`` in pixels; the width follows the page."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 68, "r": 16, "t": 28, "b": 48},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": GRAY},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
        hoverlabel={"align": "left"},
    )
    axis = {"gridcolor": "rgba(139,147,161,0.25)", "zeroline": False, "automargin": True, "showline": False,
            "title": {"font": {"size": 13}, "standoff": 12}}  # fmt: skip
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def say_instead(words: str, height: int = 160) -> go.Figure:
    """Return an empty figure with a text that says why there is nothing to draw."""
    figure = plain_figure(height)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(text=escape(words), x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return figure


def escape(words: object) -> str:
    """Return text that a figure shows literally: plotly reads labels as a subset of HTML."""
    return html.escape(str(words), quote=False)


def wrap(words: str, width: int = 60) -> str:
    """Escape and break long text into lines for a hover label."""
    import textwrap

    lines = textwrap.wrap(words, width, break_long_words=True) or [""]
    return "<br>".join(escape(line) for line in lines)


def color_of(value: float, low: float, high: float) -> str:
    """Return the color of ``value`` on the scale from ``low`` to ``high``."""
    share = 0.5 if high <= low else min(1.0, max(0.0, (value - low) / (high - low)))
    for (left, dark), (right, light) in itertools.pairwise(_SCALE):
        if share <= right:
            part = (share - left) / (right - left)
            mixed = (round(a + (b - a) * part) for a, b in zip(dark, light, strict=True))
            return "rgb({},{},{})".format(*mixed)
    raise AssertionError("shares lie in [0, 1]")


def ink_on(value: float, low: float, high: float) -> str:
    """Return black or white, whichever reads better on the color of ``value`` (relative luminance, sRGB)."""
    red, green, blue = (int(part) for part in color_of(value, low, high)[4:-1].split(","))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else "#ffffff"


def color_scale() -> list[list[float | str]]:
    """Return the scale as plotly takes it."""
    return [[share, "rgb({},{},{})".format(*color)] for share, color in _SCALE]


def value_range(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the greatest finite value, or (0, 0) if there is none."""
    kept = [value for value in values if math.isfinite(value)]
    return (min(kept), max(kept)) if kept else (0.0, 0.0)
