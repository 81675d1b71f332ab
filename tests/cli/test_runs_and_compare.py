"""``autokd runs`` and ``autokd compare``: what is on the disk, whatever state it is in."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import optuna
import pytest
from PIL import Image
from typer.testing import CliRunner

from autokd.cli import app
from autokd.cli.comparison import age_words
from autokd.storage import Entry, Results, SearchSummary, list_runs, open_study


def make_run(folder: Path, values: list[float], winner: str | None, epochs: int = 20) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: {folder.name.split()[0]}\nfull: {{epochs: {epochs}}}\n")
    study = open_study(folder / "study.db", "kd")
    for value in values:
        study.add_trial(optuna.trial.create_trial(value=value))
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    if winner is not None:
        entries = (
            Entry(name="none", seeds=(0, 1), val_ap=(0.2, 0.22), test_ap=(0.2, 0.21), train_seconds=(1.0, 1.0)),
            Entry(name="pkd", seeds=(0, 1), val_ap=(0.3, 0.32), test_ap=(0.31, 0.33), train_seconds=(1.0, 1.0)),
        )
        Results(name="kd", search=SearchSummary(sampler="mcts"), entries=entries, winner=winner).write(
            folder / "results.json"
        )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("all") / "my [runs]"
    make_run(folder / "first [a]", [0.5, 1.5, 1.0], "pkd")
    make_run(folder / "second", [0.25], None, epochs=30)
    (folder / "no run").mkdir()
    return folder


def invoke(*arguments: str, columns: int = 160):
    return CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"})


def test_runs_have_state_best_and_age(folder: Path):
    done = invoke("runs", str(folder), "--json")
    assert done.exit_code == 0, done.output
    found = {Path(row["path"]).name: row for row in json.loads(done.stdout)}
    assert sorted(found) == ["first [a]", "second"]
    first, second = found["first [a]"], found["second"]
    assert (first["state"], first["num_trials"], first["best_reward"], first["winner"]) == ("finished", 3, 1.5, "pkd")
    assert first["test_ap"] == pytest.approx(0.32)
    assert (second["state"], second["best_reward"], second["winner"]) == ("interrupted", 0.25, "")
    assert 0 <= first["age_s"] < 600
    table = invoke("runs", str(folder)).output
    assert "first [a]" in table, "brackets of a path are no markup"
    assert "+1.500" in table


def test_a_run_in_use_is_running(folder: Path):
    with (folder / "second" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        states = {run.path.name: run.state for run in list_runs(folder)}
    assert states["second"] == "running"
    assert {run.path.name: run.state for run in list_runs(folder)}["second"] == "interrupted"


def test_a_folder_without_runs_is_said(tmp_path: Path):
    assert "no run directory" in invoke("runs", str(tmp_path)).output
    assert invoke("runs", str(tmp_path / "none")).exit_code == 1


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (90, "2 min"), (7200, "2 h"), (200000, "2 d"), (-3, "0 s")])
def test_ages_are_in_their_largest_unit(seconds: float, words: str):
    assert age_words(seconds) == words


def test_compare_shows_results_settings_and_a_picture(folder: Path, tmp_path: Path):
    runs = (str(folder / "first [a]"), str(folder / "second"))
    done = invoke("compare", *runs, "--picture", str(tmp_path / "c.png"), "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["settings"] == {"full.epochs": ["20", "30"]}
    assert found["rows"]["best reward"] == ["+1.500", "+0.250"]
    assert found["rows"]["pkd, test AP"] == ["0.3200 ± 0.0141", "–"]
    assert found["rows"]["winner's gain"][0] == "+0.1150"
    with Image.open(tmp_path / "c.png") as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(maxcolors=2**20)}
    assert {(37, 99, 235), (234, 88, 12)} <= colors, "both runs are drawn"
    text = invoke("compare", *runs, "--picture", str(tmp_path / "c.png")).output
    assert "first [a]" in text
    assert "full.epochs" in text


@pytest.mark.parametrize("columns", [20, 40])
def test_tables_keep_within_a_narrow_terminal(folder: Path, tmp_path: Path, columns: int):
    runs = (str(folder / "first [a]"), str(folder / "second"))
    for arguments in (("runs", str(folder)), ("compare", *runs, "--picture", "c.png")):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            output = invoke(*arguments, columns=columns).output
        assert max(len(line) for line in output.splitlines()) <= columns
