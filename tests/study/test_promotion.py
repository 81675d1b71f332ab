"""A promoted student: when, which one, what it changes in jobs and digests, and that a resumed search keeps to it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from autokd.config import complete_recipes, config_data, config_digest, load_config, load_space
from autokd.errors import ConfigError
from autokd.jobs import Job, Outcome
from autokd.search import MCTSSampler
from autokd.storage import StudyFacts, open_study, read_record
from autokd.study import Reward, SearchDriver, SearchPlan, SilentObserver
from autokd.study.distillers import NamedDistiller
from autokd.study.finalists import best_trials, finalist_job, finalist_jobs
from autokd.study.promotion import Promotion
from tests.support.study_fakes import NONE, FakeEvaluator, quality, run

SPACE = """
space:
  terms: 1
  sources: [feature_map, foreground, background]
  transforms: {normalize: [none, standardize]}
  distances: [l1, l2, smooth_l1]
  gradient_ratio: [10, 40]
"""
FILE = "data: {format: shapes}\nteacher: {train: {}}\nstudent: {}\n"
PARAMS = {"t1.source": "feature_map", "t1.normalize": "none", "t1.distance": "l2", "t1.gradient_ratio": "10"}


class LeavesWeights(FakeEvaluator):
    """Each trial leaves a file of its own; students that learn from a promoted one are a little better."""

    folder: Path

    def evaluate(self, job: Job):
        outcome = yield from super().evaluate(job)
        metrics = dict(outcome.metrics)
        artifacts = {}
        if job.promoted:
            metrics["val_loss"] -= 0.01
        else:
            path = self.folder / f"{job.id}.pt"
            path.write_text(job.id)
            artifacts = {"student": str(path)}
        return Outcome(job.id, "finished", metrics, reports=outcome.reports, artifacts=artifacts)


@pytest.fixture
def study(tmp_path):
    return open_study(tmp_path / "study.db", "s", sampler=MCTSSampler(seed=0))


@pytest.fixture
def evaluator(tmp_path):
    made = LeavesWeights()
    made.folder = tmp_path
    return made


def make_driver(study, run_dir: Path, trials: int, after: int = 3) -> SearchDriver:
    reward = Reward(("val_loss", "cka"), NONE, {"val_loss": 1.0, "cka": 1.0})
    promotion = Promotion(study, after, run_dir, SilentObserver())
    plan = SearchPlan(trials, 2, 2, 0)
    return SearchDriver(study, load_space(SPACE), reward, plan, SilentObserver(), "me", promotion)


def digest_of(trial_number: int) -> str:
    """SHA-256 of the file that the trial left, 16 hexadecimal digits."""
    return hashlib.sha256(f"trial-{trial_number:05d}".encode()).hexdigest()[:16]


def test_the_best_of_the_first_trials_teaches_all_later_ones(study, evaluator, tmp_path):
    run(make_driver(study, tmp_path, trials=7), evaluator)
    assert [bool(job.promoted) for job in evaluator.jobs] == [False] * 3 + [True] * 4
    best = max(range(3), key=lambda i: quality(evaluator.jobs[i]))
    assert StudyFacts(study).promoted.trial == best
    assert {job.promoted for job in evaluator.jobs[3:]} == {digest_of(best)}
    assert (tmp_path / "promoted" / digest_of(best) / "weights.pt").read_text() == f"trial-{best:05d}"
    for job, trial in zip(evaluator.jobs, study.trials, strict=True):
        record = read_record(trial)
        assert (record.promoted, record.digest) == (job.promoted, job.digest)
        assert record.spec.digest + (f"+{job.promoted}" if job.promoted else "") == job.digest


def test_failed_trials_do_not_count_and_without_weights_nobody_is_promoted(study, evaluator, tmp_path):
    fails = FakeEvaluator(lambda job: Outcome(job.id, "failed", cause="non_finite", message="NaN"))
    run(make_driver(study, tmp_path, trials=4), fails)
    assert not any(job.promoted for job in fails.jobs)
    leaves_nothing = FakeEvaluator()
    run(make_driver(study, tmp_path, trials=9), leaves_nothing)
    assert not any(job.promoted for job in leaves_nothing.jobs)
    assert StudyFacts(study).promoted is None


def test_a_spec_is_tried_anew_with_the_promoted_student_and_then_known(study, evaluator, tmp_path):
    for _ in range(2):
        study.enqueue_trial(PARAMS)
    run(make_driver(study, tmp_path, trials=3), evaluator)
    assert read_record(study.trials[1]).reused_from == 0
    before = len(study.trials)
    for _ in range(2):
        study.enqueue_trial(PARAMS)
    run(make_driver(study, tmp_path, trials=5), evaluator)
    again, repeated = (read_record(trial) for trial in study.trials[before : before + 2])
    assert (again.reused_from, repeated.reused_from) == (None, before)
    assert again.spec.digest == read_record(study.trials[0]).spec.digest
    assert again.value == pytest.approx(study.trials[0].value + 0.01)


def test_a_resumed_search_keeps_to_the_student_that_was_promoted(study, evaluator, tmp_path):
    run(make_driver(study, tmp_path, trials=5), evaluator)
    promoted = evaluator.jobs[-1].promoted
    for path in tmp_path.glob("trial-*.pt"):
        path.unlink()
    run(make_driver(study, tmp_path, trials=8, after=1), evaluator)
    assert {job.promoted for job in evaluator.jobs[3:]} == {promoted}
    assert len(evaluator.jobs) == 8


def test_the_database_says_of_a_running_trial_which_student_teaches_it(study, evaluator, tmp_path):
    run(make_driver(study, tmp_path, trials=4), evaluator)
    driver = make_driver(study, tmp_path, trials=6)
    job = driver.next_job()
    record = next(read_record(t) for t in study.trials if read_record(t).job_id == job.id)
    assert record.promoted == job.promoted != ""


def test_finalists_and_entries_learn_from_whom_their_trial_did(study, evaluator, tmp_path):
    study.enqueue_trial(PARAMS)
    run(make_driver(study, tmp_path, trials=3), evaluator)
    study.enqueue_trial(PARAMS)
    run(make_driver(study, tmp_path, trials=4), evaluator)
    best = best_trials(study, 9)
    twins = [each for each in best if each.spec.digest == read_record(study.trials[0]).spec.digest]
    assert sorted(bool(each.promoted) for each in twins) == [False, True]
    jobs = finalist_jobs(best, [1, 2])
    assert len({job.id for job in jobs}) == 2 * (1 + len(best))
    promoted = next(each for each in best if each.promoted)
    assert finalist_job(promoted, 1).promoted == promoted.promoted
    entries = [NamedDistiller("with", promoted.spec, promoted.promoted), NamedDistiller("without", promoted.spec)]
    [first], [second] = (entry.jobs([0]) for entry in entries)
    assert (first.promoted, second.promoted) == (promoted.promoted, "")
    assert first.id != second.id
    assert entries[0].digest == promoted.digest != entries[1].digest


def test_promotion_is_part_of_the_digest():
    off, on = (
        complete_recipes(load_config(FILE + text))
        for text in ("search: {trials: 40}\n", "search: {trials: 40, promote_after: 5}\n")
    )
    assert config_data(off)["search"]["promote_after"] is None
    assert config_data(on)["search"]["promote_after"] == 5
    assert config_digest(off) != config_digest(on)
    assert complete_recipes(load_config(FILE + "search: {trials: 40, promote_after: null}\n")) == off


def test_one_teacher_may_have_factors_where_a_student_may_join_it():
    text = FILE + "search: {promote_after: 5}\nteacher_weights: gap\n"
    assert load_config(text).teacher_weights == "gap"
    assert config_data(complete_recipes(load_config(text)))["teacher_weights"] == "gap"
    with pytest.raises(ConfigError, match=r"<text>:4: teacher_weights: .*there is one teacher"):
        load_config(FILE + "teacher_weights: gap\n")
