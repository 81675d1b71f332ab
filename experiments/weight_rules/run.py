"""Trains a student on images of which most show one object: without distillation, with global_knowledge at a ratio, and
with PKD under both rules of measured weights.

    python experiments/weight_rules/few_objects.py work/few_objects     # the data set
    python experiments/weight_rules/run.py work/weight_rules/after      # each process takes what no other holds
    python experiments/weight_rules/run.py work/weight_rules/before --distillers global_knowledge    # at another commit
    python experiments/weight_rules/run.py collect work/weight_rules/before work/weight_rules/after

Run it at the repository's root. ``collect`` writes result.json and the table of README.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from autokd.benchmark.markdown import markdown_table, write_table
from autokd.benchmark.recording.jobs import record_jobs
from autokd.benchmark.recording.scratch import Scratch
from autokd.config import load_config
from autokd.detectors import resolve
from autokd.files import write_text_atomically
from autokd.jobs import Job, JobId
from autokd.presets import load_preset
from autokd.spec import DistillerSpec, Weight

HERE = Path(__file__).parent
CONFIG = HERE / "few_objects.yaml"
SEEDS = (0, 3, 4)
RATIO, SHARE = 40.0, 0.8


def spec_of(name: str) -> DistillerSpec | None:
    if name == "none":
        return None
    if name == "global_knowledge":
        return load_preset(name).with_gradient_ratio(RATIO)
    weight = {"pkd_share": Weight("share", SHARE), "pkd_ratio": Weight("relative", SHARE / (1 - SHARE))}[name]
    return DistillerSpec(tuple(replace(term, weight=weight) for term in load_preset("pkd").terms))


def work(folder: Path, distillers: list[str]) -> None:
    jobs = []
    for seed in SEEDS:
        for name in distillers:
            jobs.append(Job(str(JobId("full", name, seed)), spec_of(name), "full", seed))
    record_jobs(resolve(load_config(CONFIG)), jobs, folder, folder.parent / "cache")


def collect(before: Path, after: Path) -> None:
    rows = []
    for label, name, folder in (
        ("none", "none", after),
        ("global_knowledge, before", "global_knowledge", before),
        ("global_knowledge", "global_knowledge", after),
        ("pkd, ratio 4 every 20 steps", "pkd_ratio", after),
        ("pkd, share 0.8 within a band", "pkd_share", after),
    ):
        scratch = Scratch(folder, resolve(load_config(CONFIG)), ["full"])
        outcomes, commits = scratch.read()[0], scratch.commits()
        for seed in SEEDS:
            job_id = str(JobId("full", name, seed))
            if job_id in outcomes:
                metrics = outcomes[job_id].metrics
                kept = {key: round(metrics[key], 4) for key in ("val_ap", "test_ap", "test_ap_50", "train_loss")}
                losses = [round(report.metrics.get("distill_loss", 0.0), 3) for report in outcomes[job_id].reports]
                about = {"row": label, "seed": seed, "commit": commits[job_id]}
                rows.append({**about, **kept, "distill_loss": losses})
    write_text_atomically(HERE / "result.json", json.dumps(rows, indent=1) + "\n")
    labels = list(dict.fromkeys(str(row["row"]) for row in rows))
    found = {(row["row"], row["seed"]): row for row in rows}
    table = []
    for label, seed in ((label, seed) for label in labels for seed in SEEDS):
        if row := found.get((label, seed)):
            losses = [f"{loss:.3g}" for loss in row["distill_loss"][:3]]
            table.append([label, str(seed), f"{row['test_ap']:.3f}", f"{row['val_ap']:.3f}", ", ".join(losses)])
    head = ("distiller", "seed", "test AP", "val AP", "distillation loss, mean of epochs 1, 2, 3")
    write_table(HERE / "README.md", "few objects", markdown_table(head, table))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--distillers", nargs="+", default=["global_knowledge", "none", "pkd_ratio", "pkd_share"])
    options = parser.parse_args()
    first, *others = options.folders
    if first == "collect":
        collect(*map(Path, others))
    else:
        work(Path(first), options.distillers)


if __name__ == "__main__":
    main()
