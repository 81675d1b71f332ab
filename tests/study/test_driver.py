"""The search driver: calibration, values, duplicates, failures, pruning, resuming."""

from __future__ import annotations

import time

import optuna
import pytest
from optuna.trial import TrialState

from autokd.jobs import Job, Outcome
from autokd.runtime import Wait
from autokd.search import FORGET_ATTR, MCTSSampler
from autokd.storage import StudyFacts, open_study, read_record
from autokd.study import SilentObserver
from autokd.study.resume import enqueue_once, recover_trials
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


def opened(path):
    return open_study(path, "s", sampler=MCTSSampler(seed=0))


def resumed_driver(study, trials, owner="me"):
    untold = recover_trials(study, owner)
    driver = make_driver(study, trials=trials, scales=StudyFacts(study).reward_scales, owner=owner)
    for record in untold:
        driver.recover(record)
    return driver


@pytest.mark.parametrize("dies_at", [2, 5, 9])
def test_a_resumed_search_is_the_uninterrupted_one(tmp_path, dies_at):
    whole = opened(tmp_path / "whole.db")
    run(make_driver(whole, trials=12), FakeEvaluator())
    path = tmp_path / "study.db"
    first = FakeEvaluator()

    def die(job):
        if len(first.jobs) == dies_at:
            raise Killed
        return None

    first.fail = die
    with pytest.raises(Killed):
        run(make_driver(opened(path), trials=12), first)
    study = opened(path)
    second = FakeEvaluator()
    run(resumed_driver(study, 12), second)
    again = {job.id for job in first.jobs} & {job.id for job in second.jobs}
    assert again == {first.jobs[-1].id}, "the trial that was cut off is trained again, and none that had finished"
    ended = [(trial.number, trial.state, trial.params, trial.value) for trial in study.trials]
    assert ended == [(trial.number, trial.state, trial.params, trial.value) for trial in whole.trials]


class DyingStorage:
    """Ends the driver at its n-th write, before or after it."""

    WRITES = ("create_new_trial", "set_trial_param", "set_trial_user_attr", "set_trial_state_values",
              "set_trial_intermediate_value", "set_study_user_attr", "set_study_system_attr")  # fmt: skip

    def __init__(self, monkeypatch, storage, dies_at, is_after):
        self.count = 0

        def dying(method):
            def call(*args, **options):
                self.count += 1
                if self.count == dies_at and not is_after:
                    raise Killed
                result = method(*args, **options)
                if self.count == dies_at:
                    raise Killed
                return result

            return call

        for name in self.WRITES:
            monkeypatch.setattr(storage, name, dying(getattr(storage, name)))


def test_a_search_killed_at_any_write_is_the_uninterrupted_one_when_resumed(monkeypatch):
    def fresh():
        return optuna.create_study(study_name="s", direction="maximize", sampler=MCTSSampler(seed=0))

    first = {"fitnet": {"t1.source": "feature_map", "t1.normalize": "none"}, "pkd": {"t1.source": "foreground"}}

    def search(study, evaluator):
        driver = resumed_driver(study, 5)
        enqueue_once(study, first)
        run(driver, evaluator)

    def ended(study):
        return [(t.number, t.state, t.params, t.value, t.user_attrs.get("preset")) for t in study.trials]

    whole = fresh()
    with monkeypatch.context() as patches:
        writes = DyingStorage(patches, whole._storage, 0, False)
        search(whole, FakeEvaluator())
    assert [trial.user_attrs.get("preset") for trial in whole.trials[:3]] == ["fitnet", "pkd", None]
    assert writes.count > 60
    for dies_at in range(1, writes.count + 1, 3):
        study, before, after = fresh(), FakeEvaluator(), FakeEvaluator()
        with monkeypatch.context() as patches:
            DyingStorage(patches, study._storage, dies_at, dies_at % 2 == 0)
            with pytest.raises(Killed):
                search(study, before)
        search(study, after)
        assert ended(study) == ended(whole), dies_at
        assert len(before.jobs) + len(after.jobs) <= 6, "at most the trial in flight is trained twice"


def test_drivers_of_one_study_spend_one_budget_and_tell_all_calibration_trials(tmp_path):
    path = tmp_path / "study.db"
    drivers = [make_driver(opened(path), trials=10, calibration=4, owner=owner) for owner in ("a", "b")]
    evaluators = [FakeEvaluator(), FakeEvaluator()]
    ended: set[int] = set()
    while len(ended) < 2:
        for i, (driver, evaluator) in enumerate(zip(drivers, evaluators)):
            job = None if i in ended else driver.next_job()
            if job is None:
                ended.add(i)
            elif not isinstance(job, Wait):
                driver.on_outcome(run_guarded_to_end(evaluator, job))
    for driver in drivers:
        driver.finish()
    study = opened(path)
    assert len(evaluators[0].jobs) + len(evaluators[1].jobs) == 10
    assert all(evaluator.jobs for evaluator in evaluators)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    scales = StudyFacts(study).reward_scales
    for trial in study.trials:
        gain = quality(Job("", read_record(trial).spec, "proxy"))
        assert trial.value == pytest.approx(gain / scales["val_loss"] + 0.1 * gain / scales["cka"])


def run_guarded_to_end(evaluator, job):
    training = evaluator.evaluate(job)
    while True:
        try:
            next(training)
        except StopIteration as end:
            return end.value


def test_of_two_drivers_that_ask_at_one_moment_only_one_gets_the_last_trial(tmp_path):
    path = tmp_path / "study.db"
    first, second = (make_driver(opened(path), trials=1, owner=owner) for owner in ("a", "b"))
    started = second._budget.num_started
    second._budget.num_started = lambda: 0  # it has counted before the first asked
    job = first.next_job()
    second._budget.num_started = started
    assert isinstance(job, Job)
    assert isinstance(second.next_job(), Wait)
    assert [trial.state for trial in opened(path).trials if trial.state is TrialState.RUNNING] == [TrialState.RUNNING]


def test_the_trials_of_a_driver_that_has_died_are_taken_over_by_one_that_waits_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr("autokd.study.shared_budget.SILENT_AFTER_S", 0.05)
    path = tmp_path / "study.db"
    dead = make_driver(opened(path), trials=3, owner="dead")
    trained, lost = dead.next_job(), dead.next_job()
    dead.on_outcome(run_guarded_to_end(FakeEvaluator(), trained))
    study, evaluator = opened(path), FakeEvaluator()
    run(make_driver(study, trials=3, owner="alive"), evaluator)
    assert lost.id in {job.id for job in evaluator.jobs}
    assert trained.id not in {job.id for job in evaluator.jobs}
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3


def test_a_driver_that_lives_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("autokd.study.shared_budget.SILENT_AFTER_S", 0.05)
    study = opened(tmp_path / "study.db")
    first, second = (make_driver(study, trials=1, owner=owner) for owner in ("a", "b"))
    job = first.next_job()
    for number in range(1, 6):
        StudyFacts(study).set_heartbeat("a", number)
        assert isinstance(second.next_job(), Wait)
        time.sleep(0.03)
    first.on_outcome(run_guarded_to_end(FakeEvaluator(), job))
    first.finish()
    assert second.next_job() is None


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
