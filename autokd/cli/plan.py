"""The bill of a run as a table, and as JSON."""

from __future__ import annotations

import json

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autokd.study import Bill
from autokd.study.bill import size_words, time_words


def as_table(bill: Bill) -> RenderableType:
    """Return a table of the phases, and what to turn.

    Args:
        bill: the bill.
    """
    has_price = bill.price is not None
    title = f"{bill.name}: measured for {bill.measured_s:.0f} s on {bill.device}"
    columns = ["phase", "trainings", "images", "one worker", f"{bill.workers} workers", "share", "disk"]
    table = Table(*columns, *(["money"] if has_price else []), title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    total_s = bill.wall_s or 1.0
    for phase in bill.phases:
        row = [
            phase.name,
            f"{phase.jobs:,}",
            f"{phase.images:,}",
            time_words(phase.seconds),
            time_words(phase.wall_s),
            f"{phase.wall_s / total_s:.0%}",
            size_words(phase.disk_bytes) if phase.disk_bytes else "",
        ]
        table.add_row(*row, *([f"{bill.cost(phase.wall_s):.2f}"] if has_price else []))
    table.add_section()
    sums = [
        "sum",
        f"{sum(phase.jobs for phase in bill.phases):,}",
        f"{sum(phase.images for phase in bill.phases):,}",
        time_words(sum(phase.seconds for phase in bill.phases)),
        time_words(bill.wall_s),
        "",
        size_words(bill.disk_bytes),
    ]
    table.add_row(*sums, *([f"{bill.cost(bill.wall_s):.2f}"] if has_price else []))
    lines = [
        f"Disk: {size_words(bill.disk_bytes)} to write, {size_words(bill.present_bytes)} there already, "
        f"{size_words(bill.free_bytes)} free.",
        f"Memory: {size_words(bill.used_bytes)} of {size_words(bill.memory_bytes)} for {bill.workers_in_memory} "
        "workers.",
        *bill.advice(),
        *bill.notes,
    ]
    if excess := bill.excess():
        lines.append(f"It does not fit: {excess}")
    return Group(table, *(Text(line) for line in lines))


def as_json(bill: Bill) -> str:
    """Return the bill as JSON: seconds, bytes, the price's currency.

    Args:
        bill: the bill.
    """
    return json.dumps(bill.to_data(), indent=1)
