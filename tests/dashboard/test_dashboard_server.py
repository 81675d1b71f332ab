"""A small study in SQLite, served on a free loopback port and fetched over HTTP."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import optuna
import pytest
from optuna_dashboard import get_note, save_note

from autokd.errors import StorageError
from autokd.jobs import Job, Outcome
from autokd.spec import DistillerSpec
from autokd.storage import Entry, Results, SearchSummary, open_study, record_job, record_outcome
from autokd_dashboard import DashboardServer, publish_tree
from autokd_dashboard.publish import CURVE_ID, TREE_ID, merged_note, publish_changed
from autokd_dashboard.source import database_of, results_of

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose study.db holds three finished trials and a failed one."""
    folder = tmp_path_factory.mktemp("run")
    study = open_study(folder / "study.db", "small")
    for number, (distance, value) in enumerate({"l1": 0.5, "l2": 1.5, "cosine": 1.0}.items()):
        trial = study.ask({"t1.distance": optuna.distributions.CategoricalDistribution(["l1", "l2", "cosine"])})
        term = {"source": "feature_map", "transforms": [], "distance": distance, "weight": {"relative": 40.0}}
        record_job(trial, Job(f"trial-{number}", DistillerSpec.from_data({"terms": [term]}), "proxy"))
        trial.report(value / 2, 1)
        trial.report(value, 2)
        record_outcome(trial, Outcome(f"trial-{number}", "finished", {"cka": 0.5}))
        study.tell(trial, value)
    trial = study.ask()
    record_outcome(trial, Outcome("trial-3", "failed", cause="timeout"))
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return folder


@pytest.fixture(scope="module")
def server(run_dir: Path) -> Iterator[DashboardServer]:
    with DashboardServer(run_dir, port=0) as server:
        yield server


def fetch(server: DashboardServer, path: str) -> Any:
    with urlopen(asking(server, path), timeout=10) as response:
        return json.load(response)


def asking(server: DashboardServer, path: str) -> Request:
    return Request(server.address + path, headers={"Authorization": f"Bearer {server.token}"})


def detail(server: DashboardServer, ready: str = TREE_ID) -> dict[str, Any]:
    """The study's details, once its figures have been stored."""
    for _ in range(100):
        found = fetch(server, "api/studies/1")
        if any(figure["id"] == ready for figure in found["plotly_graph_objects"]):
            return found
        time.sleep(0.1)
    raise AssertionError("the figures were not stored within ten seconds")


def test_the_study_and_its_trials_are_served(server: DashboardServer) -> None:
    [study] = fetch(server, "api/studies")["study_summaries"]
    assert study["study_name"] == "small"
    trials = detail(server)["trials"]
    assert [trial["state"] for trial in trials] == ["Complete", "Complete", "Complete", "Fail"]


def test_every_trial_carries_its_formula_and_its_curve(server: DashboardServer) -> None:
    trials = detail(server)["trials"]
    assert "40 x l2(F)" in trials[1]["note"]["body"]
    assert [(point["step"], point["value"]) for point in trials[1]["intermediate_values"]] == [(1, 0.75), (2, 1.5)]


def test_the_study_shows_tree_curve_and_note(server: DashboardServer) -> None:
    found = detail(server, CURVE_ID)
    figures = {figure["id"]: json.loads(figure["graph_object"]) for figure in found["plotly_graph_objects"]}
    assert set(figures) == {TREE_ID, CURVE_ID}
    assert figures[TREE_ID]["data"][0]["type"] == "icicle"
    assert figures[TREE_ID]["data"][0]["values"][0] == 4
    for _ in range(50):
        if "Best so far" in found["note"]["body"]:
            break
        time.sleep(0.1)
        found = fetch(server, "api/studies/1")
    assert "Best so far: trial 1, reward 1.5." in found["note"]["body"]


def test_the_page_itself_is_served(server: DashboardServer) -> None:
    with urlopen(asking(server, "dashboard"), timeout=10) as response:
        assert b"<html" in response.read().lower()


def test_a_taken_port_is_replaced_by_the_next_free_one(run_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with DashboardServer(run_dir, port=port) as server:
            assert not server.address.endswith(f":{port}/")
            assert fetch(server, "api/studies")["study_summaries"]


def test_new_trials_change_the_figures_while_serving(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study.db", "growing")
    study.tell(study.ask({"a": optuna.distributions.CategoricalDistribution(["x", "y"])}), 1.0)

    def visits(server: DashboardServer) -> int:
        [tree] = [f for f in detail(server)["plotly_graph_objects"] if f["id"] == TREE_ID]
        return int(json.loads(tree["graph_object"])["data"][0]["values"][0])

    with DashboardServer(tmp_path, port=0, refresh_s=0.05) as server:
        detail(server)
        for _ in range(2):
            study.tell(study.ask({"a": optuna.distributions.CategoricalDistribution(["x", "y"])}), 2.0)
        deadline = time.monotonic() + 10
        while visits(server) != 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert visits(server) == 3


def test_what_a_person_wrote_in_the_note_is_kept(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study.db", "noted")
    save_note(study, "my own words")
    publish_tree(study)
    study.tell(study.ask(), 3.25)
    publish_tree(study)
    note = get_note(study)
    assert note.count("## AutoKD") == 1
    assert "reward 3.25" in note
    assert note.rstrip().endswith("my own words")


def test_the_note_shows_the_results_once_there_are_some(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study.db", "done")
    study.tell(study.ask(), 1.0)
    entry = Entry(name="none", seeds=(0, 1), val_ap=(0.3, 0.5), test_ap=(0.2, 0.4), train_seconds=(1.0, 1.0))
    Results(search=SearchSummary(sampler="mcts"), entries=(entry,)).write(tmp_path / "results.json")
    publish_changed(study._storage, {}, results_of(tmp_path))
    assert "| none | 0.4000 ± 0.1414 | 0.3000 ± 0.1414 |" in get_note(study)


def test_a_note_is_merged_between_its_marks() -> None:
    first = merged_note("", "one")
    edited = "above\n" + first + "below"
    assert merged_note(edited, "two") == edited.replace("one", "two")


def test_a_place_without_a_study_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no such database"):
        DashboardServer(tmp_path, port=0)
    with pytest.raises(StorageError, match="there is no such database"):
        DashboardServer(f"sqlite:///{tmp_path}/other.db", port=0)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "study.db").write_bytes(b"no database at all, only some words" * 100)
    with pytest.raises(StorageError, match="the studies cannot be read: file is not a database"):
        DashboardServer(tmp_path, port=0)


def test_a_database_without_a_study_is_refused(tmp_path: Path) -> None:
    optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study.db")
    with pytest.raises(StorageError, match="no study in this database"):
        DashboardServer(tmp_path, port=0)


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        DashboardServer("nosuchdriver://me:secret@localhost/db", port=0)
    assert "secret" not in str(caught.value)


def test_run_directory_file_and_address_mean_the_same_database(run_dir: Path) -> None:
    file = run_dir / "study.db"
    assert database_of(run_dir) == database_of(file) == database_of(f"sqlite:///{file}") == f"sqlite:///{file}"


def test_serve_prints_its_address_and_ends_on_interrupt(run_dir: Path) -> None:
    code = f"from autokd_dashboard import serve; serve({str(run_dir)!r}, port=0)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = next(word for word in line.split() if word.startswith("http"))
        assert "?token=" in address
        browser = build_opener(HTTPCookieProcessor())
        with browser.open(address, timeout=10) as response:
            assert response.status == 200
            assert "token" not in response.url
        with browser.open(address.split("?")[0] + "api/studies", timeout=10) as response:
            assert response.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
