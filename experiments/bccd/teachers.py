"""Teachers for experiments/bccd/space.yaml: the AP of each recipe, from which the space's was chosen (on val).

python experiments/bccd/teachers.py [NAME ...]    # left out: all; adds to teachers.json
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from autokd.benchmark import current_commit
from autokd.benchmark.recording.machine import machine_name
from autokd.benchmark.recording.settings import read_data
from autokd.config import load_config
from autokd.data import load_datasets
from autokd.documents import dump_yaml
from autokd.training.loader import EVALUATION_BATCH_SIZE
from autokd.training.teacher.obtain import measure_teacher, obtain_teacher

HERE = Path(__file__).parent
RECORD = HERE / "teachers.json"
CACHE = Path(os.environ.get("AUTOKD_CACHE", ".autokd_cache"))
ZOOMED = {"num_views": 32, "scale_range": [0.7, 1.4]}
TEACHERS: dict[str, dict[str, Any]] = {
    "width_32": {"backbone": {"width": 32}, "train": {"epochs": 60}},
    "width_32_views": {"backbone": {"width": 32}, "train": {"epochs": 100, "num_views": 32}},
    "width_32_zoom": {"backbone": {"width": 32}, "train": {"epochs": 100, **ZOOMED}},
    "width_48_zoom": {"backbone": {"width": 48}, "train": {"epochs": 100, **ZOOMED}},
}
"""Beside FCOS over blocks 2-2-2-2 at a rate of .004."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    for name in parser.parse_args().names or TEACHERS:
        rows = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
        rows[name] = measured(TEACHERS[name])
        RECORD.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n", encoding="utf-8")
        print(name, rows[name], flush=True)


def measured(entry: dict[str, Any]) -> dict[str, Any]:
    data = read_data(HERE / "space.yaml")
    data["teacher"] = {
        "architecture": "fcos",
        "backbone": {"blocks": [2, 2, 2, 2]} | entry["backbone"],
        "train": {"learning_rate": 0.004} | entry["train"],
    }
    config = load_config(dump_yaml(data))
    datasets, device = load_datasets(config.data, CACHE), torch.device("cpu")
    teacher = obtain_teacher(config.teachers[0], datasets.train, CACHE, device)
    score = measure_teacher(teacher, datasets, EVALUATION_BATCH_SIZE, device)
    return {
        "teacher": data["teacher"],
        "val_ap": score.val_ap,
        "test_ap": score.test_ap,
        "val_per_class": dict(score.val_per_class),
        "commit": current_commit(),
        "machine": machine_name("cpu"),
    }


if __name__ == "__main__":
    main()
