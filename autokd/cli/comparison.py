"""The tables of ``autokd runs`` and ``autokd compare``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from autokd.report import RunComparison
    from autokd.storage import RunInfo

_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0))
ABSENT = "-"


def age_words(seconds: float) -> str:
    """Return a time in its largest unit, such as "3 h".

    Args:
        seconds: the time.
    """
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def runs_table(runs: Sequence[RunInfo], age: Callable[[float], str]) -> Table:
    """Return a row a run.

    Args:
        runs: the runs.
        age: from seconds to words.
    """
    table = Table("run", "state")
    for name in ("trials", "best reward"):
        table.add_column(name, justify="right")
    table.add_column("winner", overflow="fold")
    for name in ("test AP", "age"):
        table.add_column(name, justify="right")
    for run in runs:
        table.add_row(
            Text(str(run.path), overflow="fold"),
            run.state,
            str(run.num_trials) if run.num_trials is not None else ABSENT,
            f"{run.best_reward:+.3f}" if run.best_reward is not None else ABSENT,
            Text(run.winner or ABSENT),
            f"{run.test_ap:.4f}" if run.test_ap is not None else ABSENT,
            age(run.age_s),
        )
    return table


def comparison_view(found: RunComparison) -> RenderableType:
    """Return a table of the runs side by side, and one of the settings that differ.

    Args:
        found: the comparison.
    """
    table = Table(title="results", caption="AP: mean over seeds. Gain: over none of the same run.")
    table.add_column("")
    for name in found.names:
        table.add_column(Text(name, overflow="fold"), justify="right")
    for label, cells in found.rows():
        table.add_row(Text(label), *map(Text, cells))
    if not found.settings:
        return Group(table, Text("The configurations are equal."))
    settings = Table(title="settings that differ")
    settings.add_column("setting", overflow="fold")
    for name in found.names:
        settings.add_column(Text(name), overflow="fold")
    for key, values in found.settings.items():
        settings.add_row(Text(key), *(Text(value) for value in values))
    return Group(table, settings)
