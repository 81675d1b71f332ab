"""Make the table of the benchmark package of AutoKD's recorded table of distillers.

    python integrations/optunahub/make_benchmark.py

A test compares the committed file with the recorded table.
"""

from __future__ import annotations

import gzip
import json
import statistics
from pathlib import Path
from typing import Any

from autokd.benchmark import BenchmarkRow, load_benchmark
from autokd.config import load_space
from autokd.metrics import VAL_AP
from autokd.space.locate import decisions_of

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "experiments" / "distiller_benchmark"
TARGET = Path(__file__).parent / "package" / "benchmarks" / "autokd_distillers" / "distillers.json.gz"
PROXY_METRIC = "ap"
DIGITS = 6


def content() -> dict[str, Any]:
    """Return the content of the package's table: options of each choice, rows, and the values of no distillation."""
    table = load_benchmark(RECORDED / "table.jsonl.gz")
    space = load_space(RECORDED / "space.yaml")
    rows = [{"decisions": decisions_of(space, row.spec), **values(row)} for row in table if row.spec is not None]
    options: dict[str, dict[Any, None]] = {}
    for row in rows:
        for name, value in row["decisions"].items():
            options.setdefault(name, {})[value] = None
    return {
        "options": {name: list(found) for name, found in options.items()},
        "none": values(table.none),
        "rows": rows,
    }


def values(row: BenchmarkRow) -> dict[str, float]:
    """Return val AP of a row: of its full trainings, and of the proxy after its last epoch.

    Args:
        row: a row of the recorded table.
    """
    curve = row.curve(seed=0)
    full = statistics.mean(row.values(VAL_AP).values())
    return {"full": round(full, DIGITS), "proxy": round(float(curve[max(curve)][PROXY_METRIC]), DIGITS)}


if __name__ == "__main__":
    text = json.dumps(content(), separators=(",", ":"))
    TARGET.write_bytes(gzip.compress(text.encode(), mtime=0))  # no time of its own: equal content, equal bytes
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size:,} bytes")
