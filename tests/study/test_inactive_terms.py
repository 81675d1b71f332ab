"""A trial whose distiller's every term was inactive: it counts as "none" wherever trials and entries are judged."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import pytest

from autokd.cli.app import _print_results
from autokd.jobs import Job, JobId, Outcome, Report
from autokd.report import trials_of
from autokd.report.gather import gather
from autokd.report.words import trial_rows
from autokd.search import MCTSSampler
from autokd.spec import DistillerSpec
from autokd.storage import Entry, Results, SearchSummary, open_study, read_record
from autokd.storage.record import outcome_from_json, outcome_to_json
from autokd.study import SilentObserver
from autokd.study.distillers import NamedDistiller, best_on_val
from autokd.study.fidelity import proxy_fidelity
from autokd.study.finalists import best_trials
from autokd.study.promotion import Promotion
from tests.support.study_fakes import FakeEvaluator, make_driver, run

NAMES = ("foreground.l2",)


class SomeInactive(FakeEvaluator):
    """Trials on the foreground have no active term, though their metrics are the best by far."""

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        outcome = yield from super().evaluate(job)
        assert job.spec is not None
        if job.spec.terms[0].source.name != "foreground":
            return outcome
        metrics = {"val_loss": -50.0, "cka": 50.0}
        return replace(outcome, metrics=metrics, inactive_terms=NAMES, is_inactive=True)


class Listening(SilentObserver):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def observer():
    return Listening()


@pytest.fixture
def study(tmp_path, observer):
    study = open_study(tmp_path / "study.db", "s", sampler=MCTSSampler(seed=0))
    run(make_driver(study, trials=20, scales={"val_loss": 1.0, "cka": 1.0}, observer=observer), SomeInactive())
    return study


def inactive(study):
    return [trial for trial in study.trials if read_record(trial).outcome.is_inactive]


def test_its_reward_is_that_of_none_and_the_log_says_why(study, observer):
    assert {trial.value for trial in inactive(study)} == {0.0}
    assert all(trial.value > 0 for trial in study.trials if trial not in inactive(study))
    said = [line for line in observer.lines if "term inactive: foreground.l2" in line]
    assert len(said) == len([t for t in inactive(study) if read_record(t).reused_from is None])
    assert "training without distillation" in said[0]


def test_it_is_no_finalist_and_is_not_promoted(study, tmp_path):
    numbers = {read_record(trial).digest for trial in inactive(study)}
    assert numbers
    assert not numbers & {finalist.digest for finalist in best_trials(study)}
    assert Promotion(study, 1, tmp_path, SilentObserver()).digest() == ""


def test_the_report_names_the_terms(study, tmp_path):
    views = {view.number: view for view in trials_of(study)}
    for trial in inactive(study):
        assert views[trial.number].inactive_terms == NAMES
        assert not views[trial.number].has_value
    rows = {row.number: row for row in trial_rows(gather(tmp_path, study))}
    assert "term inactive: foreground.l2" in rows[inactive(study)[0].number].state


def test_an_outcome_keeps_its_inactive_terms_in_the_database():
    outcome = Outcome("j", "finished", inactive_terms=("a", "b"), is_inactive=True)
    assert outcome_from_json(outcome_to_json(outcome)) == outcome
    assert "inactive_terms" not in outcome_to_json(Outcome("j", "finished"))


def test_the_winner_has_an_active_term():
    spec = DistillerSpec.from_data({"terms": [{"source": "foreground", "distance": "l2", "weight": {"relative": 1.0}}]})
    none, distiller = NamedDistiller("none", None), NamedDistiller("fake", spec)
    outcomes = {
        str(JobId("full", "", 0)): Outcome("a", "finished", {"val_ap": 0.4}),
        str(JobId("full", spec.digest, 0)): Outcome("b", "finished", {"val_ap": 0.41}),
    }
    assert best_on_val([none, distiller], outcomes, [0]) is distiller
    outcomes[str(JobId("full", spec.digest, 0))] = Outcome(
        "b", "finished", {"val_ap": 0.41}, inactive_terms=NAMES, is_inactive=True
    )
    assert best_on_val([none, distiller], outcomes, [0]) is none


def test_results_and_terminal_name_the_terms(tmp_path, capsys):
    entries = [Entry(name="none", seeds=(0,), val_ap=(0.4,), test_ap=(0.4,))]
    for i in range(5):
        entries.append(
            Entry(
                name=f"d{i}", digest=str(i), spec={"terms": []}, seeds=(0,), val_ap=(0.4 + i,), test_ap=(0.4,),
                proxy_reward=float(i), inactive_terms=NAMES if i == 0 else (), is_inactive=i == 0,
            )
        )  # fmt: skip
    results = Results(search=SearchSummary(sampler=""), entries=tuple(entries))
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results
    assert (tmp_path / "results.json").read_text().count("inactive_terms") == 1
    assert proxy_fidelity(entries).pairs == 4
    _print_results(results, tmp_path, quiet=False, as_json=False)
    assert "d0: term inactive: foreground.l2; all its terms" in " ".join(capsys.readouterr().out.split())
