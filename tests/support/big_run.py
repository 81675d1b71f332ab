"""The run directory of a search of thousands of trials, written into Optuna's tables at once."""

from __future__ import annotations

import functools
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, distribution_to_json
from PIL import Image

from autokd.jobs import Outcome, Report
from autokd.presets import load_preset
from autokd.report.pictures import ComparisonImage
from autokd.report.pictures_file import save_pictures
from autokd.report.view import EntryView, TrialView
from autokd.storage import Entry, Results, RunProgress, SearchSummary, StageProgress, TeacherResult, open_study
from autokd.storage.record import JOB, OUTCOME, outcome_to_json
from tests.support.report_samples import make_entries, make_images, make_race, make_trials

_STATES = {"finished": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
CONFIG = "name: big\nsearch: {sampler: mcts, trials: 5000}\n"


def write_big_run(folder: Path, count: int, *, is_over: bool = True) -> None:
    """Write the run directory.

    Args:
        folder: new folder.
        count: number of trials.
        is_over: whether it has results.
    """
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    open_study(folder / "study.db", "big")
    add_trials(folder / "study.db", make_trials(count))
    now = time.time()
    stage = StageProgress(name="trials", done=count, total=count, began_s=now - 60, first_done=0, updated_s=now)
    RunProgress(
        began_s=now - 60, updated_s=now, is_over=is_over, stages=(stage,), best=2.0, best_trial=1,
        best_formula="40 x l2(F)", said=("teacher: val AP 0.401", "space: 42 distinct distillers"),
    ).write(folder)  # fmt: skip
    if is_over:
        _write_results(folder, count)


def add_trials(database: Path, trials: tuple[TrialView, ...]) -> None:
    """Add trials to the only study of a SQLite file, in one transaction.

    Args:
        database: the file.
        trials: trials to add, with the numbers that follow.
    """
    yaml = load_preset("pkd").to_yaml()
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        first = 1 + (connection.execute("SELECT COALESCE(MAX(trial_id), 0) FROM trials").fetchone()[0])
        rows: dict[str, list[tuple[Any, ...]]] = {statement: [] for statement in _STATEMENTS.values()}
        for i, trial in enumerate(trials):
            for table, row in _rows_of(trial, first + i, yaml):
                rows[_STATEMENTS[table]].append(row)
        for statement, values in rows.items():
            connection.executemany(statement, values)


_STATEMENTS = {
    "trials": "INSERT INTO trials (trial_id, number, study_id, state) VALUES (?, ?, 1, ?)",
    "params": "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
    "attrs": "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
    "values": "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, 0, ?, 'FINITE')",
    "steps": "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) "
    "VALUES (?, ?, ?, 'FINITE')",
}


@functools.cache
def _distribution(answer: str) -> str:
    return distribution_to_json(CategoricalDistribution(["-", answer]))


def _rows_of(trial: TrialView, trial_id: int, yaml: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    yield "trials", (trial_id, trial.number, _STATES.get(trial.status, "RUNNING"))
    for name, answer in trial.path:
        yield "params", (trial_id, name, 1.0, _distribution(answer))
    job = {"owner": "me", "job_id": f"trial-{trial.number}", "recipe": "proxy", "seed": 0, "spec": yaml,
           "digest": f"{trial.number % 97:016x}", "formula": trial.formula, "reused_from": None}  # fmt: skip
    yield "attrs", (trial_id, JOB, json.dumps(job))
    if trial.preset:
        yield "attrs", (trial_id, "preset", json.dumps(trial.preset))
    if trial.status != "running":
        yield "attrs", (trial_id, OUTCOME, json.dumps(outcome_to_json(_outcome(trial))))
    if trial.value is not None:
        yield "values", (trial_id, trial.value)
        yield from (("steps", (trial_id, epoch, trial.value * epoch / 2)) for epoch in (1, 2))


def _outcome(trial: TrialView) -> Outcome:
    reports = tuple(
        Report(f"trial-{trial.number}", epoch, {"gradient_share/term 1": 0.2 * epoch, "val_loss": 0.5}, 1.0)
        for epoch in (1, 2)
    )
    worker = f"node-{trial.number % 2}:77"
    cause: Any = trial.cause or None
    return Outcome(
        f"trial-{trial.number}", trial.status, dict(trial.metrics), cause=cause, message=trial.message,
        reports=reports, seconds=trial.seconds, worker=worker,
    )  # type: ignore[arg-type]  # fmt: skip


def _write_results(folder: Path, count: int) -> None:
    Results(
        name="big",
        search=SearchSummary(sampler="mcts", finished=count, seconds=412.0),
        teacher=TeacherResult(val_ap=0.401, test_ap=0.384),
        entries=tuple(_entry(each) for each in make_entries()),
        race=make_race(),
        winner="searched",
    ).write(folder / "results.json")
    (folder / "student.pt").write_bytes(b"weights")
    (folder / "report.html").write_text("<p>report</p>")
    images = []
    for i, image in enumerate(make_images(6)):
        path = folder / f"image{i}.png"
        Image.fromarray((np.asarray(image.image) * 255).astype(np.uint8)).save(path)
        images.append(ComparisonImage(path, image.truth, image.detections, image.classes, path.name, (120, 160)))
    save_pictures(folder, images, 0.3)


def _entry(view: EntryView) -> Entry:
    spec = {} if view.name == "none" else load_preset("pkd" if view.name == "searched" else view.name, "anchor_free")
    return Entry(
        name=view.name, seeds=view.seeds, val_ap=view.val_ap, test_ap=view.test_ap, train_seconds=view.train_seconds,
        spec={} if isinstance(spec, dict) else spec.to_data(), digest=view.digest,
        test_ap_per_class=dict(view.per_class),
    )  # fmt: skip
