"""The figure of gain against cost shows every strategy at its place; the recorded one is of the recorded file."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from autokd.benchmark.simulation.cost_figure import HEIGHT, TOP, cost_svg
from experiments.pairs import strategies

PAIRS = Path(__file__).parents[2] / "experiments" / "pairs"


def points(svg: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline points="([^"]+)"', svg)
    return [[tuple(map(float, each.split(","))) for each in line.split()] for line in found]  # type: ignore[misc]


def test_twice_the_cost_is_the_same_way_and_a_greater_gain_is_higher() -> None:
    svg = cost_svg({"one": {2: 0.0, 4: 0.05, 8: 0.1}, "two": {2: 0.05, 8: 0.02}}, {"fixed": 0.03}, "a < b")
    ElementTree.fromstring(svg)
    one, two = points(svg)
    assert one[1][0] - one[0][0] == pytest.approx(one[2][0] - one[1][0], abs=0.2)
    assert one[0][1] > one[1][1] > one[2][1] == TOP
    assert two[0][1] == pytest.approx(one[1][1])
    assert max(y for line in (one, two) for _, y in line) < HEIGHT
    assert all(f">{name}</text>" in svg for name in ("one", "two", "fixed", "a &lt; b"))


def test_names_of_lines_that_end_together_do_not_cover_each_other() -> None:
    svg = cost_svg({str(i): {1: 0.1, 2: 0.1} for i in range(5)}, {}, "")
    heights = sorted(float(y) for y, name in re.findall(r'y="([\d.]+)">(\d)</text>', svg))
    assert len(heights) == 5
    assert all(b - a >= 14 for a, b in itertools.pairwise(heights))


def test_the_recorded_figure_is_that_of_the_recorded_file() -> None:
    path = PAIRS / "strategies.json"
    if not path.exists():
        pytest.skip("not recorded yet")
    report = json.loads(path.read_text(encoding="utf-8"))
    assert (PAIRS / "gain_by_cost.svg").read_text(encoding="utf-8") == strategies.picture(report)
    assert "\n".join(strategies.lines(report)) in (PAIRS / "README.md").read_text(encoding="utf-8")
