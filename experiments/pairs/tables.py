"""The tables of README.md, made from the records: python experiments/pairs/tables.py"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from autokd.benchmark import BenchmarkRow, DistillerBenchmark, load_benchmark
from autokd.benchmark.markdown import interval_text, markdown_table, mean_text, paired_gain, write_table

HERE = Path(__file__).parent
RECORDS = HERE / "records"
DIGITS = 3


@cache
def suite() -> dict[str, DistillerBenchmark]:
    """Return the table of each recorded pair that has a training without distillation."""
    tables = {path.name.partition(".")[0]: load_benchmark(path) for path in sorted(RECORDS.glob("*.jsonl.gz"))}
    return {pair: table for pair, table in tables.items() if None in table and table.none.values("test_ap")}


def teacher_ap(pair: str, tables: Mapping[str, DistillerBenchmark], scores: Mapping[str, Any]) -> float:
    """Return the test AP of a pair's teacher, which is written down for one of the pairs that share it."""

    def identity(of: str) -> Any:
        config = tables[of].header.config
        return config["data"], config["teacher"]

    return next(
        scores[of]["test_ap"]
        for of in [pair, *scores]
        if of in scores and of in tables and identity(of) == identity(pair)
    )


def label_of(row: BenchmarkRow) -> str:
    return "none" if row.spec is None else row.spec.name


def is_preset(row: BenchmarkRow) -> bool:
    """Whether it is one preset at some strength, not a sum."""
    return "+" not in label_of(row)


def finished(table: DistillerBenchmark) -> list[BenchmarkRow]:
    """Return the rows with a finished training that shares a seed with none."""
    return [row for row in table if row.values("val_ap").keys() & table.none.values("val_ap").keys()]


def best(
    table: DistillerBenchmark, metric: str, may: Callable[[BenchmarkRow], bool] = lambda row: True
) -> BenchmarkRow | None:
    """Return the row with the greatest gain on none in a metric, of those that ``may`` accepts."""
    rows = [row for row in finished(table) if may(row)]
    return max(rows, key=lambda row: row.gain(table.none, metric), default=None)


def best_elsewhere(pair: str, tables: Mapping[str, DistillerBenchmark]) -> tuple[str, BenchmarkRow | None]:
    """Return the preset with the greatest mean gain in val AP over the other pairs, and its row on this one.

    Labels count that have a row here and on at least half of the other pairs.
    """
    here = {label_of(row): row for row in finished(tables[pair]) if is_preset(row)}
    gains: dict[str, list[float]] = {}
    others = [table for name, table in tables.items() if name != pair]
    for table in others:
        for row in finished(table):
            if label_of(row) in here:
                gains.setdefault(label_of(row), []).append(row.gain(table.none, "val_ap"))
    counted = {label: statistics.fmean(found) for label, found in gains.items() if 2 * len(found) >= len(others)}
    label = max(counted, key=counted.__getitem__, default="")
    return label, here.get(label)


def gain_cell(row: BenchmarkRow | None, table: DistillerBenchmark) -> str:
    """Return the gain on none in test AP over equal seeds: its 95% interval, or the mean alone of one seed."""
    if row is None:
        return ""
    gain = paired_gain(row.values("test_ap"), table.none.values("test_ap"))
    if gain is None:
        return ""
    return interval_text(gain, DIGITS) or f"{gain.mean:+.{DIGITS}f}"


def named_gain(row: BenchmarkRow | None, table: DistillerBenchmark) -> str:
    return "" if row is None else f"{label_of(row)}: {gain_cell(row, table)}"


# --------------------------------------------------------------------------------------------- tables


def summary_table(tables: Mapping[str, DistillerBenchmark]) -> list[str]:
    """Return a row a pair: teacher, none, and the gains of the fixed choices."""
    scores, rows = json.loads((RECORDS / "teachers.json").read_text(encoding="utf-8")), []
    for pair, table in tables.items():
        by_val, by_test = best(table, "val_ap", is_preset), best(table, "test_ap", is_preset)
        rows.append(
            [
                pair,
                f"{teacher_ap(pair, tables, scores):.{DIGITS}f}",
                f"{mean_text(table.none.values('test_ap').values(), DIGITS)} ({len(table.none.values('test_ap'))})",
                named_gain(best_elsewhere(pair, tables)[1], table),
                named_gain(by_val, table),
                named_gain(by_test, table),
                named_gain(best(table, "val_ap", lambda row: not is_preset(row)), table),
            ]
        )
    head = ("pair", "teacher", "none", "preset best on the other pairs", "best preset, chosen on val",
            "best preset in hindsight (on test)", "best sum, chosen on val")  # fmt: skip
    return markdown_table(head, rows)


def counts_table(tables: Mapping[str, DistillerBenchmark]) -> list[str]:
    """Return a row a pair: distillers and trainings by seed, failures, and the noise between seeds."""
    seeds = sorted({seed for table in tables.values() for row in all_rows(table) for seed in row.full})
    rows = []
    for pair, table in tables.items():
        outcomes = [outcome for row in all_rows(table) for outcome in row.full.values()]
        seconds = [outcome.seconds for outcome in outcomes if outcome.status == "finished"]
        by_seed = [sum(seed in row.full for row in all_rows(table)) for seed in seeds]
        failed = sum(outcome.status == "failed" for outcome in outcomes)
        rows.append([pair, len(table), *by_seed, failed or "", f"{statistics.median(seconds):.0f}", noise(table)])
    head = ("pair", "distillers", *(f"seed {seed}" for seed in seeds), "failed", "median s", "deviation of test AP")
    return markdown_table(head, rows)


def all_rows(table: DistillerBenchmark) -> list[BenchmarkRow]:
    return [table.none, *table]


def noise(table: DistillerBenchmark) -> str:
    """Return the standard deviation of test AP between seeds, pooled over the rows with several."""
    groups = [list(row.values("test_ap").values()) for row in all_rows(table)]
    groups = [values for values in groups if len(values) > 1]
    freedom = sum(len(values) - 1 for values in groups)
    if not freedom:
        return ""
    pooled = sum(statistics.variance(values) * (len(values) - 1) for values in groups) / freedom
    return f"{pooled**0.5:.4f} ({freedom} degrees of freedom)"


def preset_of(row: BenchmarkRow) -> str:
    """Return the preset's name without its strength; a sum's whole label."""
    label = label_of(row)
    return label if "+" in label else label.partition("@")[0]


def pair_table(table: DistillerBenchmark) -> list[str]:
    """Return a row for none, each preset at its strength that is best on val, and each sum; the best on val first."""
    strongest: dict[str, BenchmarkRow] = {}
    for row in sorted(finished(table), key=lambda row: row.gain(table.none, "val_ap")):
        strongest[preset_of(row)] = row
    rows = sorted(strongest.values(), key=lambda row: -row.gain(table.none, "val_ap"))
    tried = {name: sum(preset_of(row) == name for row in finished(table)) for name in strongest}
    cells = [[label_of(row), tried[preset_of(row)], *scores(row), gain_cell(row, table)] for row in rows]
    none = ["none", "", *scores(table.none), ""]
    head = ("distiller", "strengths tried", "val AP", "test AP (seeds)", "gain on none, test")
    return markdown_table(head, [none, *cells])


def scores(row: BenchmarkRow) -> tuple[str, str]:
    val, test = row.values("val_ap"), row.values("test_ap")
    return mean_text(val.values(), DIGITS), f"{mean_text(test.values(), DIGITS)} ({len(test)})"


def readme_tables() -> Iterable[tuple[str, Sequence[str]]]:
    """Yield the name and the lines of each table of the README."""
    tables = suite()
    yield "summary", summary_table(tables)
    yield "counts", counts_table(tables)
    for pair, table in tables.items():
        yield pair, pair_table(table)


def main() -> None:
    for name, lines in readme_tables():
        write_table(HERE / "README.md", name, lines)
        print("\n".join([name, *lines, ""]))


if __name__ == "__main__":
    main()
