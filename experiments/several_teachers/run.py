"""Trains one student under two teachers, each alone and both with every rule of sharing, beside "none".

    python experiments/several_teachers/run.py work [--distillers fitnet]   # each process takes what no other holds
    python experiments/several_teachers/run.py collect      # result.json and the tables of README.md

Run it at the repository's root. An interrupted process loses the training it was at.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autokd.benchmark.markdown import gain_text, markdown_table, paired_gain, write_table
from autokd.benchmark.recording.jobs import record_jobs
from autokd.benchmark.recording.scratch import Scratch
from autokd.benchmark.recording.settings import read_data
from autokd.config import ResolvedConfig, load_config
from autokd.detectors import resolve
from autokd.documents import dump_yaml
from autokd.files import write_text_atomically
from autokd.jobs import Job, JobId, Outcome
from autokd.presets import load_preset
from autokd.spec import DistillerSpec
from autokd.training import PROMOTED_FOLDER

HERE = Path(__file__).parent
SPACE = Path("search_spaces/bccd.yaml")
RATIO = 40.0
"""Gradient ratio: the baseline gradient ratio of search_spaces/bccd.yaml. Shares sum to 1, so it means the same for
two."""
DISTILLERS = ("fitnet", "pkd")
SEEDS = (0, 1)
SECOND_TEACHER = {
    "architecture": "retinanet",
    "backbone": {"blocks": [2, 2, 2, 2], "width": 32},
    "train": {"epochs": 60, "learning_rate": 0.004},
}
ARMS: Mapping[str, tuple[tuple[int, ...], str]] = {
    "first": ((0,), "equal"),
    "second": ((1,), "equal"),
    "equal": ((0, 1), "equal"),
    "gap": ((0, 1), "gap"),
    "gradient": ((0, 1), "gradient"),
}
"""Which teachers, and the rule by which they share."""
PROMOTED_ARM = "promoted"
"""The first teacher and the student that promoted.yaml's search promoted, in equal shares."""
PROMOTED_RUN = "promoted"
"""That search's run directory, in the scratch folder."""


def entries(distillers: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
    """Yield (distiller, arm, seed) of every training, the most important first."""
    for seed in SEEDS:
        yield "none", "first", seed
    for distiller in distillers:
        for seed in SEEDS:
            for arm in ARMS:
                yield distiller, arm, seed
        if distiller == "fitnet":
            for seed in SEEDS:
                yield distiller, PROMOTED_ARM, seed


def promoted_student(run: Path) -> str:
    """Return the digest of the student that a search promoted; empty if there is none yet."""
    found = sorted(path.name for path in (run / PROMOTED_FOLDER).glob("*") if path.is_dir())
    return found[0] if found else ""


def config(arm: str) -> ResolvedConfig:
    data = read_data(SPACE)
    positions, rule = ARMS["first" if arm == PROMOTED_ARM else arm]
    teachers = [data["teacher"], SECOND_TEACHER]
    data["teacher"] = [teachers[i] for i in positions]
    return resolve(load_config(dump_yaml(data | ({"teacher_weights": rule} if len(positions) > 1 else {}))))


def work(distillers: tuple[str, ...], scratch: Path, cache: Path) -> None:
    _measure_teachers(scratch, cache)
    for arm in (*ARMS, PROMOTED_ARM):
        run, promoted = None, ""
        if arm == PROMOTED_ARM:
            run = scratch / PROMOTED_RUN
            promoted = promoted_student(run)
            if not promoted:
                continue
        jobs = [
            Job(str(JobId("full", distiller, seed)), _spec(distiller), "full", seed, promoted)
            for distiller, its_arm, seed in entries(distillers)
            if its_arm == arm
        ]
        if jobs:
            record_jobs(config(arm), jobs, scratch / arm, cache, run_dir=run)


def _measure_teachers(scratch: Path, cache: Path) -> None:
    from autokd.data import load_datasets
    from autokd.training import prepare

    both = config("equal")
    prepared = prepare(both, load_datasets(both.data, cache), cache, seeds=(), device="cpu")
    scores = [
        {"val_ap": score.val_ap, "test_ap": score.test_ap, "test_per_class": dict(score.test_per_class)}
        for score in prepared.scores
    ]
    scratch.mkdir(parents=True, exist_ok=True)
    write_text_atomically(scratch / "teachers.json", json.dumps(scores))


def _spec(distiller: str) -> DistillerSpec | None:
    return None if distiller == "none" else load_preset(distiller).with_gradient_ratio(RATIO)


def _rows(scratch: Path) -> list[dict[str, Any]]:
    """Return a row for every training that has ended."""
    rows = []
    for arm in (*ARMS, PROMOTED_ARM):
        if not (scratch / arm).exists():
            continue
        folder = Scratch(scratch / arm, config(arm), ["full"])
        outcomes, commits = folder.read()[0], folder.commits()
        for distiller, its_arm, seed in entries(DISTILLERS):
            id_ = str(JobId("full", distiller, seed))
            if its_arm == arm and id_ in outcomes:
                about = {"distiller": distiller, "arm": arm, "seed": seed, "commit": commits[id_]}
                rows.append(about | _plain(outcomes[id_]))
    return sorted(rows, key=lambda row: (row["distiller"], row["arm"], row["seed"]))


def _plain(outcome: Outcome) -> dict[str, Any]:
    """Return the metrics of an outcome, and the teachers' shares after each epoch."""
    shares = [
        [round(value, 4) for name, value in sorted(report.metrics.items()) if name.startswith("teacher_share_")]
        for report in outcome.reports
    ]
    kept = {name: value for name, value in outcome.metrics.items() if name in ("val_ap", "test_ap", "cka")}
    about = {"status": outcome.status, "cause": outcome.cause, "message": outcome.message}
    return about | {"metrics": kept, "shares": shares if any(shares) else []}


def collect(scratch: Path) -> None:
    teachers = json.loads((scratch / "teachers.json").read_text(encoding="utf-8"))
    rows = _rows(scratch)
    none = _by_seed(rows, "none", "first")
    table = [["none", "", *(_cell(none.get(seed)) for seed in SEEDS), "", "", "", "", ""]]
    for distiller in DISTILLERS:
        for arm in (*ARMS, PROMOTED_ARM):
            found = _by_seed(rows, distiller, arm)
            if found:
                table.append([distiller, _label(arm), *_cells(found, none)])
    head = (
        "distiller",
        "teachers",
        "seed 0: test AP",
        "seed 1",
        "gain on none, seed 0",
        "seed 1",
        "mean gain",
        "val AP, mean gain",
        "shares at the end (first / second)",
    )
    lines = markdown_table(head, table)
    taught = markdown_table(
        ("teacher", "val AP", "test AP"),
        [
            (name, f"{about['val_ap']:.3f}", f"{about['test_ap']:.3f}")
            for name, about in zip(("first: FCOS", "second: RetinaNet"), teachers, strict=True)
        ],
    )
    result = {"teachers": teachers, "trainings": rows}
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_table(HERE / "README.md", "teachers", taught)
    write_table(HERE / "README.md", "shares", lines)
    print("\n".join([*taught, "", *lines]))


def _by_seed(rows: list[dict[str, Any]], distiller: str, arm: str) -> dict[int, dict[str, Any]]:
    return {row["seed"]: row for row in rows if (row["distiller"], row["arm"]) == (distiller, arm)}


def _label(arm: str) -> str:
    if arm == PROMOTED_ARM:
        return "first and a promoted student, equal"
    return f"{arm} alone" if len(ARMS[arm][0]) == 1 else f"both, {arm}"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['metrics']['test_ap']:.3f}" if row["status"] == "finished" else str(row["cause"])


def _values(found: dict[int, dict[str, Any]], metric: str) -> dict[int, float]:
    """Return a metric of the finished trainings, by seed."""
    return {seed: row["metrics"][metric] for seed, row in found.items() if row["status"] == "finished"}


def _mean_gain(found: dict[int, dict[str, Any]], none: dict[int, dict[str, Any]], metric: str) -> str:
    """Return the mean gain on none; empty unless every seed has one."""
    gain = paired_gain(_values(found, metric), _values(none, metric))
    return gain_text(gain, 3) if gain is not None and gain.count == len(SEEDS) else ""


def _cells(found: dict[int, dict[str, Any]], none: dict[int, dict[str, Any]]) -> list[str]:
    ours, theirs = _values(found, "test_ap"), _values(none, "test_ap")
    shares = [
        " / ".join(f"{share:.2f}" for share in found[s]["shares"][-1])
        for s in SEEDS
        if s in found and found[s]["shares"]
    ]
    return [
        *(_cell(found.get(seed)) for seed in SEEDS),
        *(f"{ours[seed] - theirs[seed]:+.3f}" if seed in ours and seed in theirs else "" for seed in SEEDS),
        _mean_gain(found, none, "test_ap"),
        _mean_gain(found, none, "val_ap"),
        "; ".join(shares),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("work", "collect"))
    parser.add_argument("--distillers", nargs="+", choices=DISTILLERS, default=DISTILLERS)
    parser.add_argument("--scratch", type=Path, default=Path("runs/several_teachers"))
    parser.add_argument("--cache-dir", type=Path, default=Path(os.environ.get("AUTOKD_CACHE", ".autokd_cache")))
    options = parser.parse_args()
    if options.command == "collect":
        collect(options.scratch)
    else:
        work(tuple(options.distillers), options.scratch, options.cache_dir)
