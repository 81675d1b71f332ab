"""The search driver: calibration, values, duplicates, failures, pruning, resuming."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from autokd.jobs import Job, Outcome
from autokd.search import FORGET_ATTR, MCTSSampler
from autokd.storage import StudyFacts, open_study, read_record
from autokd.study import SilentObserver
from autokd.study.resume import recover_trials
from tests.support.study_fakes import NONE, FakeEvaluator, make_driver, quality, run


@pytest.fixture
def study(tmp_path):
    return open_study(tmp_path / "study.db", "s", sampler=MCTSSampler(seed=0))


def test_values_follow_from_metrics_and_the_scales_stored_in_the_database(study):
    run(make_driver(study, trials=8), FakeEvaluator())
    scales = StudyFacts(study).reward_scales
    for trial in study.trials:
        gain = quality(Job("", read_record(trial).spec, "proxy"))
        assert trial.value == pytest.approx(gain / scales["val_loss"] + 0.1 * gain / scales["cka"])


def test_every_trial_carries_spec_digest_curve_and_intermediate_values(study):
    run(make_driver(study, trials=6), FakeEvaluator())
    for trial in study.trials:
        record = read_record(trial)
        assert record.spec.digest == record.digest
        assert set(trial.intermediate_values) == {1, 2}
        assert trial.intermediate_values[2] == pytest.approx(trial.value)
        assert len(record.outcome.reports) == 2


def test_duplicates_are_answered_from_the_database_and_cost_no_trial(study):
    evaluator = FakeEvaluator()
    study.enqueue_trial(
        {"t1.source": "feature_map", "t1.normalize": "none", "t1.distance": "l2", "t1.gradient_ratio": "10"}
    )
    study.enqueue_trial(
        {"t1.source": "feature_map", "t1.normalize": "none", "t1.distance": "l2", "t1.gradient_ratio": "10"}
    )
    run(make_driver(study, trials=5, scales={"val_loss": 1.0, "cka": 1.0}), evaluator)
    assert len(evaluator.jobs) == 5
    assert len({job.spec.digest for job in evaluator.jobs}) == 5
    reused = [trial for trial in study.trials if read_record(trial).reused_from is not None]
    assert [trial.number for trial in reused] == [1]
    assert reused[0].value == study.trials[0].value


def test_a_twin_of_a_trial_in_flight_waits_for_its_outcome(study):
    params = {"t1.source": "feature_map", "t1.normalize": "none", "t1.distance": "l2", "t1.gradient_ratio": "10"}
    study.enqueue_trial(params)
    study.enqueue_trial(params)
    driver = make_driver(study, trials=2, scales={"val_loss": 1.0, "cka": 1.0})
    first, second = driver.next_job(), driver.next_job()
    assert first.spec.digest != second.spec.digest
    metrics = NONE[2]
    driver.on_outcome(Outcome(second.id, "finished", metrics))
    assert study.trials[1].state is TrialState.RUNNING
    driver.on_outcome(Outcome(first.id, "finished", metrics))
    assert study.trials[1].state is TrialState.COMPLETE


def test_an_exhausted_space_ends_the_search(study):
    evaluator = FakeEvaluator()
    # 3 sources x 2 x 3 distances x 2 gradient ratios
    run(make_driver(study, trials=500, scales={"val_loss": 1.0, "cka": 1.0}), evaluator)
    assert len(evaluator.jobs) == 36


@pytest.mark.parametrize("cause", ["non_finite", "out_of_memory", "timeout", "worker_lost", "cannot_build", "error"])
def test_each_kind_of_failure_is_a_recorded_outcome_and_the_search_goes_on(study, cause):
    count = []

    def fail(job):
        count.append(job)
        return Outcome(job.id, "failed", cause=cause, message="for a reason") if len(count) == 2 else None

    run(make_driver(study, trials=6), FakeEvaluator(fail))
    failed = [trial for trial in study.trials if trial.state is TrialState.FAIL]
    assert len(failed) == 1
    assert read_record(failed[0]).outcome.cause == cause
    assert read_record(failed[0]).outcome.message == "for a reason"
    assert failed[0].user_attrs.get(FORGET_ATTR, False) is (cause in ("worker_lost", "error"))
    assert sum(trial.state is TrialState.COMPLETE for trial in study.trials) == 5


def test_a_search_whose_every_trial_fails_ends(study):
    fail = lambda job: Outcome(job.id, "failed", cause="non_finite", message="NaN")  # noqa: E731
    run(make_driver(study, trials=4), FakeEvaluator(fail))
    assert {trial.state for trial in study.trials} == {TrialState.FAIL}


def test_calibration_trials_of_a_short_search_are_told_at_its_end(study):
    run(make_driver(study, trials=2, calibration=9), FakeEvaluator())
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)


def test_the_pruner_stops_what_lags_behind(tmp_path):
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
    study = open_study(tmp_path / "study.db", "s", sampler=MCTSSampler(seed=0), pruner=pruner)
    run(make_driver(study, trials=25, calibration=3), FakeEvaluator())
    pruned = [trial for trial in study.trials if trial.state is TrialState.PRUNED]
    assert pruned
    assert all(max(trial.intermediate_values) == 1 for trial in pruned)
    best = max(quality(Job("", read_record(t).spec, "proxy")) for t in study.trials)
    completed = [t for t in study.trials if t.state is TrialState.COMPLETE]
    assert max(quality(Job("", read_record(t).spec, "proxy")) for t in completed) == best


class Killed(BaseException):
    """As a kill would end the driver: nothing is cleaned up."""


@pytest.mark.parametrize("dies_at", [2, 5, 9])
def test_a_resumed_search_repeats_and_loses_no_finished_trial(tmp_path, dies_at):
    path = tmp_path / "study.db"
    first = FakeEvaluator()

    def die(job):
        if len(first.jobs) == dies_at:
            raise Killed
        return None

    first.fail = die
    driver = make_driver(open_study(path, "s", sampler=MCTSSampler(seed=0)), trials=12)
    with pytest.raises(Killed):
        run(driver, first)
    study = open_study(path, "s", sampler=MCTSSampler(seed=0))
    untold = recover_trials(study, "me")
    again = make_driver(study, trials=12, scales=StudyFacts(study).reward_scales)
    for record in untold:
        again.recover(record)
    second = FakeEvaluator()
    run(again, second)
    finished = [job.spec.digest for job in first.jobs[:-1]]
    assert not set(finished) & {job.spec.digest for job in second.jobs}, "a finished trial was repeated"
    completed = {read_record(t).digest for t in study.trials if t.state is TrialState.COMPLETE}
    assert set(finished) <= completed, "a finished trial was lost"
    assert first.jobs[-1].spec.digest in completed, "the interrupted trial was not tried again"
    assert len(completed) == 12
    interrupted = [t for t in study.trials if t.state is TrialState.FAIL]
    assert all(trial.user_attrs[FORGET_ATTR] for trial in interrupted)


def test_the_observer_receives_every_trial(study):
    received = []

    class Listener(SilentObserver):
        def trial_ended(self, news):
            received.append(news)

    run(make_driver(study, trials=6, observer=Listener()), FakeEvaluator())
    assert [news.done for news in received] == [1, 2, 3, 4, 5, 6]
    assert received[-1].best == pytest.approx(max(trial.value for trial in study.trials))


def test_two_drivers_of_one_study_judge_by_the_same_scales(tmp_path):
    path = tmp_path / "study.db"
    first = make_driver(open_study(path, "s", sampler=MCTSSampler(seed=0)), trials=9, calibration=3)
    second = make_driver(open_study(path, "s", sampler=MCTSSampler(seed=0)), trials=9, calibration=3)
    for driver, count in ((first, 3), (second, 3)):
        for _ in range(count):
            job = driver.next_job()
            gain = quality(job)
            driver.on_outcome(Outcome(job.id, "finished", {"val_loss": 1.0 - gain, "cka": 0.5 + 0.2 * gain}))
    study = open_study(path, "s")
    scales = StudyFacts(study).reward_scales
    for trial in study.trials:
        gain = quality(Job("", read_record(trial).spec, "proxy"))
        assert trial.value == pytest.approx(gain / scales["val_loss"] + 0.2 * gain / scales["cka"])
