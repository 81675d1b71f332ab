"""The whole path on real (generated or photographed) images: search, hand-over, kill, resume."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import torch

import autokd
from autokd.config import load_config
from autokd.data import load_datasets
from autokd.errors import StorageError
from autokd.storage import Results, open_existing, read_record
from autokd.study import evaluate_weights, run_distill, run_search

pytestmark = pytest.mark.slow

TINY = """
name: tiny
data: {format: shapes, image_size_px: [64, 64], num_train: 24, num_val: 12, num_test: 12}
teacher: {backbone: {width: 16}, train: {epochs: 2}}
student: {backbone: {width: 8}}
space:
  terms: 1
  sources: [feature_map, foreground, instance]
  transforms: {normalize: [none, standardize, softmax_cells]}
  distances: [l2, kl]
search: {trials: 5, enqueue: [pkd], finalists: 2, finalist_seeds: [1]}
proxy: {warm_start: {epochs: 1}, epochs: 1, calibration_trials: 2}
full: {epochs: 2, seeds: [0, 1], baselines: [none, pkd]}
runtime: {workers: 0}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    """A run that came to its end: (directory, results)."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    return directory, run_search(load_config(TINY), directory, cache_dir=cache, trackers=["csv"])


def test_a_run_leaves_everything_that_it_promises(finished):
    directory, results = finished
    names = {"config.yaml", "study.db", "best_distiller.yaml", "student.pt", "results.json", "report.html"}
    assert names <= {path.name for path in directory.iterdir()}
    assert Results.read(directory / "results.json") == results
    assert [entry.name for entry in results.entries] == ["none", "pkd", "searched"]
    assert results.search.finished == 5
    assert results.proxy_fidelity.kendall_tau is None
    assert "below 4 no rank correlation is given" in results.proxy_fidelity.note
    assert all(len(entry.test_ap) == 2 for entry in results.entries)


def test_results_follow_the_published_schema(finished):
    data = json.loads((finished[0] / "results.json").read_text())
    assert data["schema"] == 1
    assert {"sampler", "finished", "failed", "pruned", "reused", "seconds"} <= set(data["search"])
    assert {"val_ap", "test_ap"} <= set(data["teacher"])
    assert {"name", "spec", "digest", "seeds", "val_ap", "test_ap", "train_seconds"} <= set(data["entries"][0])
    assert {"kendall_tau", "pairs", "low", "high", "note"} <= set(data["proxy_fidelity"])
    assert {"finalists", "rounds", "verdict", "trainings", "prior_mean", "between"} <= set(data["race"])
    assert {"seeds", "rewards", "mean", "expected", "fell_in", "reason"} <= set(data["race"]["finalists"][0])


def test_the_winner_of_the_finalists_race_is_what_was_searched(finished):
    race = finished[1].race
    assert [ended.seed for ended in race.rounds] == [1]
    assert race.finalists[0].digest == finished[1].entry("searched").digest
    assert [each.seeds for each in race.finalists] == [(0, 1), (0, 1)]
    assert race.finalists[0].rewards[0] == finished[1].entry("searched").proxy_reward
    assert race.finalists[0].expected_deviation > 0


def test_the_student_loads_in_plain_torchvision_and_scores_what_the_results_say(finished, cache):
    directory, results = finished
    state = torch.load(directory / "student.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    winner = results.entry(results.winner)
    scores = evaluate_weights(load_config(TINY), directory / "student.pt", "test", cache_dir=cache)
    assert scores["AP"] == pytest.approx(winner.test_ap[winner.val_ap.index(max(winner.val_ap))], abs=1e-6)


def test_trackers_get_every_curve_reward_and_picture(finished):
    directory, results = finished
    folder = directory / "tracking"
    curves = list(csv.DictReader((folder / "curves.csv").open()))
    jobs = {row["job"]: row for row in csv.DictReader((folder / "jobs.csv").open())}
    assert {row["job"] for row in curves} == set(jobs)
    records = [read_record(trial) for trial in open_existing(directory).trials]
    trained = {record.job_id for record in records if record.reused_from is None}
    assert {name for name, row in jobs.items() if row["group"] == "trial"} == trained
    # A search whose winner is the preset itself trains that loss once: on which processor it is, rounding decides.
    losses = {entry.digest for entry in results.entries}
    assert Counter(row["group"] for row in jobs.values())["full"] == 2 * len(losses), "two seeds a loss"
    metrics = json.loads(jobs["full-none-s0"]["metrics"])
    assert metrics["val_loss"] == results.entry("none").metrics["val_loss"][0]
    values = {record.job_id: record.value for record in records if record.value is not None}
    rewards = {row["job"]: float(row["reward"]) for row in csv.DictReader((folder / "rewards.csv").open())}
    assert rewards == values
    rows = {row["name"]: row for row in csv.DictReader((folder / "results.csv").open())}
    assert [name for name, row in rows.items() if row["is_winner"] == "True"] == [results.winner]
    assert len(list(folder.glob("*.jpg"))) >= 6


def test_a_run_is_exported_and_predicted_beside_its_teacher(finished, cache, tmp_path):
    directory, _ = finished
    exported = autokd.export(directory, ["torchscript", "safetensors"], tmp_path, cache_dir=cache)
    assert all(model.differences.is_within_tolerance for model in exported.models)
    assert [teacher.has_weights for teacher in exported.teachers] == [True]
    assert exported.teachers[0].size_bytes > exported.student_bytes
    images = load_datasets(load_config(TINY).data, cache, check=False).test.image_path(0).parent
    for side in ("student", "teacher"):
        found = autokd.predict(directory, [images], tmp_path / side, side=side, threshold=0, cache_dir=cache)
        assert found["images"] == 12
        assert found["boxes"] > 0


def test_distillation_changes_the_student(finished):
    none, pkd = finished[1].entry("none"), finished[1].entry("pkd")
    assert none.metrics["val_loss"] != pkd.metrics["val_loss"]


def test_a_second_search_trains_no_teacher_and_repeats_the_first_exactly(finished, cache, tmp_path):
    teachers = {path: path.stat().st_mtime_ns for path in (cache / "teachers").rglob("*.pt")}
    again = run_search(load_config(TINY), tmp_path / "again", cache_dir=cache)
    assert {path: path.stat().st_mtime_ns for path in (cache / "teachers").rglob("*.pt")} == teachers
    assert [entry.val_ap for entry in again.entries] == [entry.val_ap for entry in finished[1].entries]
    assert [entry.digest for entry in again.entries] == [entry.digest for entry in finished[1].entries]


def test_a_directory_in_use_is_not_overwritten(finished, cache):
    with pytest.raises(StorageError, match="--resume"):
        run_search(load_config(TINY), finished[0], cache_dir=cache)


def test_resuming_with_another_configuration_names_the_difference(finished, cache):
    other = load_config(TINY.replace("epochs: 2, seeds", "epochs: 3, seeds"))
    with pytest.raises(StorageError, match=r"full\.epochs"):
        run_search(other, finished[0], cache_dir=cache, resume=True)


def test_a_run_that_was_moved_is_resumed_and_trains_only_what_has_lost_its_files(finished, cache, tmp_path):
    directory, results = finished
    moved = tmp_path / "moved"
    shutil.copytree(directory, moved)
    lost = moved / "jobs" / "full-none-s1" / "student.pt"
    kept = moved / "jobs" / "full-none-s0" / "student.pt"
    lost.unlink()
    kept.write_bytes(kept.read_bytes())  # another time than that of the copy
    written = kept.stat().st_mtime_ns
    hidden = directory.rename(directory.with_name("gone"))
    try:
        renamed = TINY.replace("name: tiny", "name: renamed")
        again = run_search(load_config(renamed), moved, cache_dir=cache, resume=True)
    finally:
        hidden.rename(directory)
    assert lost.is_file()
    assert kept.stat().st_mtime_ns == written
    assert again.name == "tiny"
    assert [entry.val_ap for entry in again.entries] == [entry.val_ap for entry in results.entries]
    assert again.search.finished == 5


def test_a_run_whose_database_was_emptied_is_not_searched_again_without_a_word(finished, cache, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    for name in ("study.db", "study.db-wal", "study.db-shm"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    with pytest.raises(StorageError, match="is empty now"):
        run_search(load_config(TINY), tmp_path / "run", cache_dir=cache, resume=True)


def test_a_given_distiller_is_trained_beside_the_baselines(cache, tmp_path):
    from autokd.presets import load_preset

    results = run_distill(load_config(TINY), load_preset("cwd"), tmp_path / "given", cache_dir=cache)
    assert [entry.name for entry in results.entries] == ["none", "pkd", "cwd"]
    assert [entry.spec.get("family", "") for entry in results.entries] == ["", "one_stage", "any"]
    (note,) = (note for note in results.notes if "as published for" in note)
    assert note.startswith("pkd: as published for one_stage detectors (open-mmlab/mmrazor")


def test_a_given_distiller_costs_no_warm_start(cache, tmp_path):
    from autokd.presets import load_preset

    made = set(cache.glob("warm_starts/*.pt"))
    shorter = TINY.replace(
        "epochs: 2, seeds: [0, 1], baselines: [none, pkd]", "epochs: 1, seeds: [0], baselines: [none]"
    )
    run_distill(load_config(shorter), load_preset("cwd"), tmp_path / "short", cache_dir=cache)
    assert set(cache.glob("warm_starts/*.pt")) == made


def start(space, directory, cache, *arguments):
    command = [sys.executable, "-m", "autokd", "search", str(space), "--run-dir", str(directory), *arguments]
    environment = os.environ | {"AUTOKD_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for_trials(directory, count, process):
    for _ in range(600):
        assert process.poll() is None, process.communicate()
        with contextlib.suppress(StorageError):  # not made yet
            if sum(read_record(t).outcome is not None for t in open_existing(directory).trials) >= count:
                return
        time.sleep(0.2)
    raise AssertionError("the search makes no trials")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_search_that_was_ended_goes_on_without_losing_or_repeating_a_trial(finished, cache, tmp_path, end):
    space, directory = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text(TINY)
    process = start(space, directory, cache, "--trials", "12")
    wait_for_trials(directory, 4, process)
    process.send_signal(end)
    _, words = process.communicate(timeout=60)
    before = {
        t.number: t.value for t in open_existing(directory).trials if t.state.is_finished() and t.value is not None
    }
    assert 1 <= len(before) < 12
    if end is signal.SIGINT:
        assert process.returncode == 130
        assert "continue with --resume" in words
    process = start(space, directory, cache, "--trials", "12", "--resume")
    output = process.communicate(timeout=300)
    assert process.returncode == 0, output
    trials = open_existing(directory).trials
    assert {number: trials[number].value for number in before} == before
    assert Results.read(directory / "results.json").search.finished >= 12
    trained = [read_record(t).digest for t in trials if t.value is not None and read_record(t).reused_from is None]
    assert len(trained) == len(set(trained)) == 12


@pytest.mark.ray
def test_ray_workers_give_the_same_numbers_as_this_process(finished, cache, tmp_path):
    config = load_config(TINY.replace("workers: 0", "workers: 2"))
    results = run_search(config, tmp_path / "ray", cache_dir=cache)
    for name in ("none", "pkd"):
        assert results.entry(name).val_ap == finished[1].entry(name).val_ap


def test_a_small_search_on_photographs(bccd_root, cache, tmp_path):
    text = TINY.replace(
        "data: {format: shapes, image_size_px: [64, 64], num_train: 24, num_val: 12, num_test: 12}",
        f"data: {{root: {bccd_root}, train: instances_test.json, val: instances_val.json, test: instances_test.json, "
        "image_size_px: [96, 128]}",
    ).replace("trials: 5", "trials: 2")
    results = run_search(load_config(text), tmp_path / "bccd", cache_dir=cache)
    assert results.search.finished == 2
    assert set(results.entry("none").test_ap_per_class) == {"RBC", "WBC", "Platelets"}
