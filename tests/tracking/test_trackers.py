"""Trackers: what a run shows them is read back by each library's own reader."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autokd.errors import ConfigError
from autokd.jobs import Job, Outcome, Report
from autokd.spec import DistillerSpec
from autokd.study.tracked_driver import TrackedDriver
from autokd.tracking import RunSummary, TrackedRun, Trackers, check_trackers, open_trackers, tracked_job

SPEC = DistillerSpec.from_data(
    {
        "schema": 2,
        "terms": [
            {"source": "feature_map", "transforms": ["standardize"], "distance": "l2", "weight": {"relative": 4.0}}
        ],
    }
)
TRIAL = Job("trial-00000", SPEC, "proxy", 0)
FULL = Job("full-none-s1", None, "full", 1)


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (30, 20), (200, 10, 10)).save(stream, "JPEG")
    return stream.getvalue()


class Inner:
    """A driver of two jobs."""

    def __init__(self) -> None:
        self.jobs: list[Job | None] = [TRIAL, FULL, None]
        self.ended: list[str] = []

    def next_job(self) -> Job | None:
        return self.jobs.pop(0)

    def on_report(self, report: Report) -> bool:
        return report.epoch < 2

    def on_outcome(self, outcome: Outcome) -> None:
        self.ended.append(outcome.job_id)


def track(trackers: Trackers) -> None:
    """Lead a run of two jobs through a driver under trackers: a trial of two epochs and a full training of one."""
    inner = Inner()
    driver = TrackedDriver(inner, trackers)
    assert driver.next_job() == TRIAL
    assert driver.next_job() == FULL
    assert driver.next_job() is None
    assert driver.on_report(Report(TRIAL.id, 1, {"ap": 0.25, "val_loss": math.nan}, 1.0)) is True
    assert driver.on_report(Report(FULL.id, 1, {"ap": 0.5}, 1.0)) is True
    assert driver.on_report(Report(TRIAL.id, 2, {"ap": 0.375, "val_loss": 2.0}, 2.0)) is False
    driver.on_outcome(Outcome(TRIAL.id, "pruned", metrics={"ap": 0.375}, seconds=3.0))
    driver.on_outcome(Outcome(FULL.id, "finished", metrics={"ap": 0.5, "test_ap": 0.4375}, seconds=9.0))
    assert inner.ended == [TRIAL.id, FULL.id]
    row: dict[str, Any] = {"name": "none", "formula": "", "val_ap": 0.5, "test_ap": 0.4375}
    trackers.finish(
        RunSummary({TRIAL.id: 1.5}, "| distiller | test AP |\n|---|---|\n| none | .4375 |\n", [row], {"street": jpeg()})
    )


@pytest.fixture
def run(tmp_path: Path) -> TrackedRun:
    return TrackedRun("kd", tmp_path, "owner-1", {"name": "kd"})


def test_a_job_shows_every_choice_of_its_distiller():
    job = tracked_job(TRIAL)
    assert job.group == "trial"
    assert job.parameters["term1.source"] == "feature_map"
    assert job.parameters["term1.distance"] == "l2"
    assert "standardize" in job.formula
    assert [tracked_job(FULL).group, tracked_job(Job("proxy-none-s0", None, "proxy")).group] == ["full", "proxy"]


def test_an_unknown_tracker_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"--log.*'tensorbord'.*tensorboard"):
        check_trackers(["tensorbord"])


def test_csv_has_curves_jobs_results_and_goes_on_after_an_interruption(run: TrackedRun):
    with contextlib.suppress(KeyboardInterrupt), open_trackers(["csv"], run) as trackers:
        trackers.started(TRIAL)
        trackers.reported(Report(TRIAL.id, 1, {"ap": 0.25}, 1.0))
        raise KeyboardInterrupt
    with open_trackers(["csv"], run) as trackers:
        track(trackers)
    folder = run.directory / "tracking"
    curves = list(csv.DictReader((folder / "curves.csv").open()))
    assert [(r["job"], r["epoch"], r["metric"], float(r["value"])) for r in curves] == [
        (TRIAL.id, "1", "ap", 0.25), (TRIAL.id, "1", "ap", 0.25), (FULL.id, "1", "ap", 0.5),
        (TRIAL.id, "2", "ap", 0.375), (TRIAL.id, "2", "val_loss", 2.0),
    ]  # fmt: skip
    jobs = {row["job"]: row for row in csv.DictReader((folder / "jobs.csv").open())}
    assert jobs[TRIAL.id]["status"] == "pruned"
    assert json.loads(jobs[TRIAL.id]["parameters"])["term1.source"] == "feature_map"
    assert next(csv.DictReader((folder / "results.csv").open()))["test_ap"] == "0.4375"
    assert next(csv.DictReader((folder / "rewards.csv").open())) == {"job": TRIAL.id, "reward": "1.5"}
    assert (folder / "street.jpg").read_bytes() == jpeg()


def test_tensorboard_reads_curves_parameters_table_and_picture(run: TrackedRun):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_trackers(["tensorboard"], run) as trackers:
        track(trackers)
    events = EventAccumulator(str(run.directory / "tensorboard" / "trial" / TRIAL.id)).Reload()
    assert [(point.step, point.value) for point in events.Scalars("ap")] == [(1, 0.25), (2, 0.375)]
    assert [point.step for point in events.Scalars("val_loss")] == [2], "what is not finite has no point"
    assert "standardize" in events.Tensors("formula/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
    assert b"feature_map" in events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    full = EventAccumulator(str(run.directory / "tensorboard" / "full" / FULL.id)).Reload()
    assert full.Scalars("end/test_ap")[0].value == 0.4375
    results = EventAccumulator(str(run.directory / "tensorboard" / "results")).Reload()
    assert ".4375" in results.Tensors("results/text_summary")[0].tensor_proto.string_val[0].decode()
    assert results.Scalars("reward of trials")[0].value == 1.5
    picture = Image.open(io.BytesIO(results.Images("street")[0].encoded_image_string))
    assert picture.size == (30, 20)


@pytest.mark.slow
def test_mlflow_reads_runs_within_the_search(run: TrackedRun, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(RuntimeError), open_trackers(["mlflow"], run):
        raise RuntimeError("interrupted")
    with open_trackers(["mlflow"], run) as trackers:
        track(trackers)
    client = MlflowClient(tracking_uri=f"sqlite:///{run.directory / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("kd")
    assert experiment is not None
    found = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert sorted(found) == [FULL.id, "kd", TRIAL.id], "the resumed run is the one that was interrupted"
    trial, parent = found[TRIAL.id], found["kd"]
    assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert trial.data.params["term1.source"] == "feature_map"
    assert [(m.step, m.value) for m in client.get_metric_history(trial.info.run_id, "ap")] == [(1, 0.25), (2, 0.375)]
    assert trial.data.metrics["reward"] == 1.5
    assert parent.data.metrics["none/test_ap"] == 0.4375
    assert parent.info.status == "FINISHED"
    artifacts = run.directory / "mlflow" / "artifacts" / parent.info.run_id / "artifacts"
    assert ".4375" in (artifacts / "results.md").read_text()
    assert (artifacts / "pictures" / "street.jpg").read_bytes() == jpeg()


@pytest.mark.slow
def test_wandb_writes_offline_runs(run: TrackedRun, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    monkeypatch.setenv("WANDB_MODE", "offline")
    with open_trackers(["wandb"], run) as trackers:
        track(trackers)
    found: dict[str, Any] = {}
    for file in (run.directory / "wandb").glob("offline-run-*/*.wandb"):
        store = DataStore()
        store.open_for_scan(str(file))
        name, history = "", []
        while (data := store.scan_data()) is not None:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            name = record.run.display_name or name
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            history += [items] if items else []
        found[name] = history
    assert sorted(found) == [FULL.id, "results", TRIAL.id]
    assert [(row["epoch"], row["ap"]) for row in found[TRIAL.id]] == [(1, 0.25), (2, 0.375)]
    assert "results" in found["results"][0]
