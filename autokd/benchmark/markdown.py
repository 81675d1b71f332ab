"""Tables of Markdown, and their place in the README of an experiment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from autokd.errors import BenchmarkError
from autokd.report.statistics import Gain, gain_by_seed, summarize

END = "<!-- end -->"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table.

    Args:
        head: one text a column.
        rows: one cell a column; an empty text leaves the cell empty.
    """
    lines = [_line(head), "|---" * len(head) + "|"]
    return lines + [_line([str(cell) for cell in row]) for row in rows]


def write_table(readme: Path, name: str, lines: Sequence[str]) -> None:
    """Replace the table between ``<!-- name -->`` and ``<!-- end -->`` in a README.

    Args:
        readme: the file.
        name: name in the comment above the table.
        lines: the new table.

    Raises:
        BenchmarkError: if the file has no such place; it is left as it is.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(f"<!-- {name} -->\n")
    if not begin or END not in rest:
        raise BenchmarkError(
            f"{readme}: no '<!-- {name} -->' with '{END}' behind it. Write both where the table belongs."
        )
    readme.write_text(before + begin + "\n".join(lines) + "\n" + rest[rest.index(END) :], encoding="utf-8")


def mean_text(values: Iterable[float], digits: int) -> str:
    """Return mean ± sample standard deviation of APs, the mean alone of one value; empty if there is none."""
    summary = summarize(list(values))
    if summary is None:
        return ""
    deviation = "" if summary.deviation is None else f" ± {summary.deviation:.{digits}f}"
    return f"{summary.mean:.{digits}f}{deviation}"


def paired_gain(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Gain | None:
    """Return the gain of APs by seed over the seeds that both have; None if they share none."""
    gain = gain_by_seed(ours, theirs)
    return gain if gain is not None and gain.is_paired else None


def gain_text(gain: Gain | None, digits: int) -> str:
    """Return the mean difference with its sign; empty for None."""
    return "" if gain is None else f"{gain.mean:+.{digits}f}"


def interval_text(gain: Gain | None, digits: int) -> str:
    """Return the mean difference with its 95% interval; empty if there is none."""
    if gain is None or gain.low is None or gain.high is None:
        return ""
    return f"{gain.mean:+.{digits}f} [{gain.low:+.{digits}f}, {gain.high:+.{digits}f}]"


def _line(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"
