"""Turns the full trainings of ``experiments/bccd/gain.json`` into recorded tables, one a pair.

python experiments/portfolio/bccd_tables.py FOLDER    # AUTOKD_BCCD: the photographs' folder, if it lies elsewhere
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from autokd.benchmark import BenchmarkRow, DistillerBenchmark, make_header, save_benchmark
from autokd.config import load_config
from autokd.detectors import resolve
from autokd.documents import load_document
from autokd.jobs import NO_DISTILLATION, Outcome
from autokd.presets import load_preset, preset_names
from autokd.spec import DistillerSpec

BCCD = Path(__file__).parent.parent / "bccd"
PAIRS = {
    "full": ("bccd-fcos", "anchor_free"),
    "retinanet": ("bccd-retinanet", "anchor_based"),
    "shapes": ("shapes", "anchor_free"),
}
"""Part of gain.json -> name of the pair, family of its student."""


def distiller_of(name: str, ratio: float | None, family: str) -> DistillerSpec | None:
    """Return the distiller of a row: a preset at its tuned ratio or with its published weights, or a file."""
    if name == NO_DISTILLATION:
        return None
    if name in preset_names():
        spec = load_preset(name, family)
        return spec if ratio is None else spec.with_gradient_ratio(ratio)
    file = "best_distiller" if name == "searched" else name
    return DistillerSpec.from_yaml(BCCD / f"{file}.yaml")


def main() -> None:
    """Write the tables."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    recorded = json.loads((BCCD / "gain.json").read_text())
    document = load_document(BCCD / "space.yaml").data
    if root := os.environ.get("AUTOKD_BCCD"):
        document["data"]["root"] = root
    for part, (pair, family) in PAIRS.items():
        outcomes: dict[str, dict[int, Outcome]] = {}
        for row in recorded[part]["rows"]:
            if row["status"] == "finished":
                metrics = {name: value for name, value in row.items() if isinstance(value, float)}
                outcome = Outcome("", "finished", metrics)
                outcomes.setdefault(row["name"], {})[row["seed"]] = outcome
        rows = [
            BenchmarkRow(distiller_of(name, recorded["gradient_ratios"].get(name), family), full=found)
            for name, found in outcomes.items()
        ]
        config = resolve(load_config(json.dumps(document | {"name": pair})))
        header = make_header(config, commits=recorded[part]["commits"], machines=recorded[part]["machines"])
        save_benchmark(folder / f"{pair}.jsonl.gz", DistillerBenchmark(header, rows))


if __name__ == "__main__":
    main()
