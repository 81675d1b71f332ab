"""The table of README.md, made from the records: python experiments/pretrained/tables.py"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autokd.benchmark import BenchmarkRow, DistillerBenchmark, load_benchmark
from autokd.benchmark.markdown import gain_text, interval_text, markdown_table, mean_text, paired_gain, write_table

HERE = Path(__file__).parent
STARTS = {"ImageNet": "pretrained", "random": "from_scratch"}
SETS = ("okra", "fruit")
DIGITS = 3


def records() -> dict[tuple[str, str], DistillerBenchmark]:
    """Return the recorded tables by set and start."""
    paths = {(of, start): HERE / "records" / f"{of}_{name}.jsonl.gz" for of in SETS for start, name in STARTS.items()}
    return {key: load_benchmark(path) for key, path in paths.items() if path.exists()}


def row_of(table: DistillerBenchmark | None, label: str) -> BenchmarkRow | None:
    """Return the row of a label; None if it is not recorded."""
    if table is None:
        return None
    rows = {"none": table.none} if None in table else {}
    return (rows | {row.spec.name: row for row in table if row.spec is not None}).get(label)


def difference(ours: BenchmarkRow | None, theirs: BenchmarkRow | None) -> str:
    """Return the difference in test AP over equal seeds with its 95% interval; of one seed without."""
    if ours is None or theirs is None or ours is theirs:
        return ""
    gain = paired_gain(ours.values("test_ap"), theirs.values("test_ap"))
    return interval_text(gain, DIGITS) or gain_text(gain, DIGITS)


def table(tables: Mapping[tuple[str, str], DistillerBenchmark]) -> list[str]:
    """Return a row for each set, distiller and start."""
    rows = []
    for of in SETS:
        found = {start: tables.get((of, start)) for start in STARTS}
        labels = {row.spec.name if row.spec else "none" for t in found.values() if t for row in [t.none, *t]}
        for label in sorted(labels, key=lambda label: (label != "none", label)):
            for start, recorded in found.items():
                row = row_of(recorded, label)
                if row is None or not row.values("test_ap"):
                    continue
                val, test = (row.values(metric).values() for metric in ("val_ap", "test_ap"))
                above = "" if start == "random" else difference(row, row_of(found["random"], label))
                gain = difference(row, row_of(recorded, "none"))
                cells = mean_text(val, DIGITS), f"{mean_text(test, DIGITS)} ({len(test)})", gain, above
                rows.append([of, label, start, *cells])
    head = ("set", "distiller", "backbone starts from", "val AP", "test AP (seeds)", "gain on none of this start, test",
            "ImageNet, less random, test")  # fmt: skip
    return markdown_table(head, rows)


def main() -> None:
    lines = table(records())
    write_table(HERE / "README.md", "table", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
