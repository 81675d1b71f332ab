"""AP of students that learn from stored teacher outputs in float16 and in int8, and without a teacher.

Full trainings on the cells of BCCD, two seeds; the three rows share seeds, order of images and views. Any number of
processes may run it with the same WORK: they share the teacher and the caches, and each takes what is left.

    python experiments/scale/int8_outputs.py --root BCCD --work WORK [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch

from autokd.config import load_config
from autokd.data import load_datasets
from autokd.detectors import resolve
from autokd.documents import dump_yaml
from autokd.jobs import Outcome, WorkerResources, make_job
from autokd.presets import load_preset
from autokd.runtime import InProcessRuntime
from autokd.study.observer import SilentObserver
from autokd.study.phased_driver import BatchDriver
from autokd.training import TrainingEvaluatorFactory, prepare

SEEDS = (0, 1)
PRESETS = ("fitnet", "pkd", "kd")
GRADIENT_RATIO = 40.0


def config_of(root: Path, precision: str):
    """Return the configuration of one precision."""
    return resolve(
        load_config(
            dump_yaml(
                {
                    "name": f"int8_outputs_{precision}",
                    "data": {"root": str(root), "train": "train.json", "val": "val.json", "test": "test.json",
                             "image_size_px": [96, 128]},
                    "teacher": {"backbone": {"width": 16}, "fpn_channels": 32, "box_init": 1,
                                "train": {"epochs": 20, "batch_size": 8}},
                    "student": {"backbone": {"width": 8}, "fpn_channels": 16, "box_init": 1},
                    "full": {"epochs": 8, "batch_size": 8, "seeds": list(SEEDS), "teacher_outputs": "disk"},
                    "cache": {"precision": precision},
                    "runtime": {"workers": 0},
                }
            )
        )
    )  # fmt: skip


def _say(outcome: Outcome) -> None:
    print(outcome.job_id, outcome.status, outcome.metrics.get("test_ap"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, object]] = {}
    for precision in ("float16", "int8"):
        config = config_of(given.root.resolve(), precision)
        datasets = load_datasets(config.data, given.work / "cache")
        prepare(config, datasets, given.work / "cache", seeds=())
        jobs = {("none", seed): make_job(None, "full", seed) for seed in SEEDS} if precision == "float16" else {}
        for preset in PRESETS:
            spec = load_preset(preset, "anchor_free").with_gradient_ratio(GRADIENT_RATIO)
            jobs |= {(preset, seed): make_job(spec, "full", seed) for seed in SEEDS}
        known = given.work / f"{precision}.json"
        driver = BatchDriver(precision, jobs.values(), {}, _say, SilentObserver())
        factory = TrainingEvaluatorFactory(config, given.work / "cache", given.work / precision, datasets)
        InProcessRuntime(WorkerResources(1)).run(driver, factory)
        for (name, seed), job in jobs.items():
            metrics = driver.outcomes[job.id].metrics
            row = rows.setdefault(name if name == "none" else f"{name}, {precision}", {})
            row[f"seed {seed}"] = {"val_ap": metrics["val_ap"], "test_ap": metrics["test_ap"]}
        known.write_text(json.dumps(rows, indent=1))
    for row in rows.values():
        row["test_ap"] = statistics.fmean(row[f"seed {seed}"]["test_ap"] for seed in SEEDS)  # type: ignore[index]
    text = json.dumps(rows, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
