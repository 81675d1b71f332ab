"""The results as a table for the terminal (rich), for Markdown, and as rows for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autokd.jobs import NO_DISTILLATION
from autokd.report.statistics import Gain, gain, summarize
from autokd.report.view import EntryView

if TYPE_CHECKING:
    from rich.table import Table

ABSENT = "–"
FOOTNOTE = (
    "Mean ± sample standard deviation over seeds. Gain: mean difference to none on the same seeds with the 95% "
    "interval of Student's t (it covers training noise, not the choice of test images)."
)


@dataclass(frozen=True, slots=True)
class Row:
    """An entry as text."""

    name: str
    seeds: str
    val_ap: str
    test_ap: str
    gain: str
    interval: str
    train_seconds: str
    is_winner: bool


def rows(entries: Sequence[EntryView], winner: str = "") -> list[Row]:
    """Return a row for each entry, best mean test AP first; entries without values come last."""
    base = next((entry for entry in entries if entry.name == NO_DISTILLATION), None)

    def rank(entry: EntryView) -> float:
        summary = summarize(entry.test_ap)
        return -summary.mean if summary is not None else 1.0

    return [_row(entry, base, winner) for entry in sorted(entries, key=rank)]


def entries_table(entries: Sequence[EntryView], *, winner: str = "", judged_on: str = "test") -> Table:
    """Return the table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(caption=FOOTNOTE, caption_justify="left")
    table.add_column("distiller", no_wrap=True)
    for name in ("val AP", f"{judged_on} AP", "gain over none", "95% interval", "train s", "seeds"):
        table.add_column(name, justify="right")
    for row in rows(entries, winner):
        cells = (row.val_ap, row.test_ap, row.gain, row.interval, row.train_seconds, row.seeds)
        name = f"{row.name} *" if row.is_winner else row.name
        table.add_row(Text(name), *map(Text, cells), style="bold" if row.is_winner else None)
    return table


def entries_markdown(entries: Sequence[EntryView], *, winner: str = "", judged_on: str = "test") -> str:
    """Return the table as Markdown; the winner, as the run chose it on val, in bold."""
    lines = [
        f"| distiller | val AP | {judged_on} AP | gain over none | 95% interval | train s | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows(entries, winner):
        name = row.name.replace("|", "\\|")
        name = f"**{name}**" if row.is_winner else name
        cells = (name, row.val_ap, row.test_ap, row.gain, row.interval, row.train_seconds, row.seeds)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", FOOTNOTE, ""])


def seeds_in_short(seeds: Sequence[int]) -> str:
    """Return "0, 1", and "0-4" for three or more in a row."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds)) or ABSENT


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Return "0.3710 ± 0.0012", the mean alone for one value, a dash for none."""
    summary = summarize(values)
    if summary is None:
        return ABSENT
    if summary.deviation is None:
        return f"{summary.mean:.{digits}f}"
    return f"{summary.mean:.{digits}f} ± {summary.deviation:.{digits}f}"


def interval(found: Gain | None) -> str:
    """Return "[+0.0030, +0.0170]", or a dash where no spread is known."""
    if found is None or found.low is None or found.high is None:
        return ABSENT
    return f"[{found.low:+.4f}, {found.high:+.4f}]"


def _row(entry: EntryView, base: EntryView | None, winner: str) -> Row:
    found = None if base is None or entry.name == NO_DISTILLATION else gain(entry, base)
    return Row(
        name=entry.name,
        seeds=seeds_in_short(entry.seeds),
        val_ap=spread(entry.val_ap),
        test_ap=spread(entry.test_ap),
        gain=ABSENT if found is None else f"{found.mean:+.4f}",
        interval=interval(found),
        train_seconds=spread(entry.train_seconds, digits=1),
        is_winner=bool(winner) and entry.name == winner,
    )
