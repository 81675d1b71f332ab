"""From a study, results and a folder to the values of the report."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest

from autokd.jobs import Job, Outcome, Report
from autokd.report import gather, results_markdown, results_table, trials_of, write_report
from autokd.spec import DistillerSpec, formula
from autokd.storage import (
    Entry,
    FinalistResult,
    ProxyFidelity,
    Race,
    RaceRound,
    Results,
    SearchSummary,
    StudyFacts,
    TeacherResult,
    record_job,
    record_outcome,
)

optuna.logging.set_verbosity(optuna.logging.WARNING)


def spec_of(distance: str, weight: float = 40.0) -> DistillerSpec:
    term = {"source": "feature_map", "transforms": [], "distance": distance, "weight": {"relative": weight}}
    return DistillerSpec.from_data({"terms": [term]})


def add_trial(study: optuna.Study, distance: str, outcome: str, value: float = 0.0, **more: object) -> None:
    """Ask, record and tell one trial as a search does."""
    trial = study.ask()
    trial.suggest_categorical("t1.distance", ["l1", "l2", "cosine"])
    weight = trial.suggest_float("t1.gradient_ratio", 3.0, 100.0)
    record_job(trial, Job(f"trial-{trial.number}", spec_of(distance, weight), "proxy"), **more)  # type: ignore[arg-type]
    reports = (Report("j", 1, {"val_loss": 0.9}, 1.0), Report("j", 2, {"val_loss": 0.8}, 2.0))
    if outcome == "reused":
        study.tell(trial, value)
    elif outcome == "finished":
        for report in reports:
            trial.report(value - 2 + report.epoch, report.epoch)
        metrics = {"val_loss": 0.8, "cka": math.nan}
        record_outcome(trial, Outcome("j", "finished", metrics, reports=reports, seconds=2.5))
        study.tell(trial, value)
    elif outcome == "running":
        pass
    else:
        record_outcome(trial, Outcome("j", "failed", cause="non_finite", message="nan in epoch 1"))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)


@pytest.fixture
def study() -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial({"t1.distance": "l2", "t1.gradient_ratio": 40.0}, user_attrs={"preset": "fitnet"})
    add_trial(study, "l2", "finished", 1.5)
    add_trial(study, "l1", "failed")
    add_trial(study, "cosine", "finished", 2.5)
    add_trial(study, "cosine", "reused", 2.5, reused_from=2)
    add_trial(study, "l1", "running")
    study.enqueue_trial({"t1.distance": "l1"})
    return study


@pytest.fixture
def results() -> Results:
    rows = {"none": (None, (0.30, 0.32), 0.0), "fitnet": (spec_of("l2"), (0.33, 0.34), 1.5),
            "searched": (spec_of("cosine"), (0.36, None), 2.5)}  # fmt: skip
    entries = tuple(
        Entry(
            name=name, spec=spec.to_data() if spec else {}, digest=spec.digest if spec else "none", seeds=(0, 1),
            val_ap=ap, test_ap=ap, train_seconds=(10.0, 11.0), proxy_reward=reward,
            test_ap_per_class={"RBC": ap}, formula=formula(spec) if spec else "",
        )
        for name, (spec, ap, reward) in rows.items()
    )  # fmt: skip
    return Results(
        name="small", search=SearchSummary(sampler="mcts", seconds=12.0), teacher=TeacherResult(val_ap=0.5),
        entries=entries, proxy_fidelity=ProxyFidelity(kendall_tau=1.0, pairs=3), winner="searched",
        notes=("seed 1 of searched failed",), versions={"torch": "2.15.0"},
    )  # fmt: skip


def test_trials_are_read_as_they_were_recorded(study: optuna.Study) -> None:
    trials = trials_of(study)
    assert [t.status for t in trials] == ["finished", "failed", "finished", "finished", "running"]
    assert [t.value for t in trials] == [1.5, None, 2.5, 2.5, None]
    assert [t.preset for t in trials] == ["fitnet", "", "", "", ""]
    assert trials[0].path == (("t1.distance", "l2"),)
    assert trials[0].curve == ((1, 0.5), (2, 1.5))
    assert trials[0].metrics == {"val_loss": 0.8}
    assert (trials[1].cause, trials[1].message) == ("non_finite", "nan in epoch 1")
    assert (trials[3].reused_from, trials[3].seconds) == (2, 0.0)
    assert trials[0].formula == "40 x l2(F)"


def test_report_data_holds_what_the_results_say(study: optuna.Study, results: Results, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {format: coco, test: null}\nsearch: {sampler: mcts}\n")
    data = gather(tmp_path, study, results)
    assert data.judged_on == "val"
    assert (data.search.finished, data.search.failed, data.search.reused) == (3, 1, 1)
    assert [(p.name, p.proxy_value, p.full_val_ap) for p in data.fidelity] == [
        ("none", 0.0, pytest.approx(0.31)), ("fitnet", 1.5, pytest.approx(0.335)), ("searched", 2.5, 0.36),
    ]  # fmt: skip
    searched = data.entry("searched")
    assert searched is not None
    assert math.isnan(searched.test_ap[1])
    assert searched.formula_lines[0].startswith("L = 40 x cosine")
    assert DistillerSpec.from_yaml(searched.yaml) == spec_of("cosine")
    assert data.environment == {"torch": "2.15.0"}
    assert data.config_yaml.startswith("data:")


def test_a_page_is_written_from_study_and_results(study: optuna.Study, results: Results, tmp_path: Path) -> None:
    path = write_report(tmp_path, study, results)
    assert path == tmp_path / "report.html"
    text = path.read_text(encoding="utf-8")
    assert "seed 1 of searched failed" in text
    assert "non_finite" in text


def test_a_page_is_written_before_there_are_results(study: optuna.Study, tmp_path: Path) -> None:
    text = write_report(tmp_path, study).read_text(encoding="utf-8")
    assert "The best of 5 trials is trial 2, reward 2.5." in text
    empty = optuna.create_study()
    assert "Nothing has been tried yet" in write_report(tmp_path, empty).read_text(encoding="utf-8")


def test_result_tables_take_results(results: Results) -> None:
    assert "| **searched** | 0.3600 |" in results_markdown(results)
    assert results_table(results).row_count == 3


def test_the_headline_leaves_out_the_seed_that_failed(study: optuna.Study, results: Results, tmp_path: Path) -> None:
    text = write_report(tmp_path, study, results).read_text(encoding="utf-8")
    assert "+0.0600 AP against no distillation; with one seed nothing can be said about its noise." in text


def test_the_race_comes_from_the_results_and_before_them_from_the_database(
    study: optuna.Study, results: Results, tmp_path: Path
) -> None:
    assert gather(tmp_path, study, results).race is None
    ran = FinalistResult(
        digest="ab", formula="f", seeds=(0, 1), rewards=(2.0, 1.0), mean=1.5, expected=1.25, expected_deviation=0.5
    )
    fell = FinalistResult(digest="cd", seeds=(0,), rewards=(1.5,), mean=1.5, fell_in=1, reason="it failed")
    rounds = (RaceRound(seed=1, leader="ab", entered=("ab", "cd"), fell=("cd",), noise=0.5, freedom=2),)
    race = Race(finalists=(ran, fell), rounds=rounds, verdict="clear", trainings=2, prior_mean=0.5, between=1.0)
    StudyFacts(study).set_race(race)
    seen = gather(tmp_path, study).race
    assert seen == gather(tmp_path, study, results.model_copy(update={"race": race})).race
    assert seen == race
    text = write_report(tmp_path, study).read_text(encoding="utf-8")
    assert "eliminated in round 1: it failed" in text


def test_the_interval_of_the_fidelity_and_its_caution_are_passed_on(
    study: optuna.Study, results: Results, tmp_path: Path
) -> None:
    fidelity = ProxyFidelity(kendall_tau=0.5, pairs=5, low=-0.25, high=0.75, note="with care")
    data = gather(tmp_path, study, results.model_copy(update={"proxy_fidelity": fidelity}))
    assert data.proxy_fidelity == fidelity
