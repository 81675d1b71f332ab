"""The tables of the READMEs are those that today's code makes of the recorded data."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from autokd.benchmark.simulation.reports import comparison_table
from experiments.bccd import gain
from experiments.distiller_benchmark import choosing, parts, pruning
from tests.support.benchmark_samples import EXPERIMENT

BCCD = EXPERIMENT.parent / "bccd"


def cells(lines: Sequence[str]) -> list[list[str]]:
    """Cells of a table without the blanks around them, in which older tables differ."""
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def recorded(readme: str, name: str) -> list[list[str]]:
    return cells(readme.partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0].splitlines())


@pytest.mark.parametrize(
    ("name", "table_of"),
    [
        ("comparison", comparison_table),
        ("choosing", choosing.table_text),
        ("parts", parts.table_text),
        ("pruning", pruning.table_text),
    ],
)
def test_tables_of_searches_come_out_of_their_records(name: str, table_of: Callable[[dict[str, Any]], list[str]]):
    report = json.loads((EXPERIMENT / f"{name}.json").read_text(encoding="utf-8"))
    readme = (EXPERIMENT / "README.md").read_text(encoding="utf-8")
    assert cells(table_of(report)) == recorded(readme, name)


@pytest.mark.parametrize("stage", gain.STAGES)
def test_tables_of_gains_come_out_of_their_records(stage):
    report = json.loads((BCCD / "gain.json").read_text(encoding="utf-8"))
    readme = (BCCD / "README.md").read_text(encoding="utf-8")
    assert cells(gain.table(report[stage]["rows"], report["gradient_ratios"])) == recorded(readme, stage)
