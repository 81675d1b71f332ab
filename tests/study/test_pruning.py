"""What the pruners of a config file do in a search, and that a pruned spec is not trained again."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from autokd.config import load_space
from autokd.config.model import SearchConfig
from autokd.jobs import Job, Outcome, Report
from autokd.search import make_pruner, make_sampler
from autokd.space import enumerate_specs
from autokd.storage import find_by_digest, open_study, read_record, record_job, record_outcome
from autokd.study import Reward, SearchDriver, SearchPlan, SilentObserver
from tests.support.study_fakes import NONE, FakeEvaluator, make_driver, quality, run

PARAMS = {"t1.source": "feature_map", "t1.normalize": "none", "t1.distance": "l2", "t1.gradient_ratio": "10"}
SCALES = {"val_loss": 1.0, "cka": 1.0}


class StopsAtOnce(optuna.pruners.BasePruner):
    """Prunes the trials of these numbers after their first epoch."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def prune(self, study, trial):
        return trial.number in self.numbers


@pytest.fixture
def study(tmp_path):
    return open_study(tmp_path / "study.db", "s", pruner=StopsAtOnce(0))


def test_a_pruned_spec_that_is_suggested_again_is_pruned_again_and_costs_nothing(study):
    for _ in range(3):
        study.enqueue_trial(PARAMS)
    evaluator = FakeEvaluator()
    run(make_driver(study, trials=4, scales=SCALES), evaluator)
    pruned, first, second = study.trials[:3]
    assert [trial.state for trial in (pruned, first, second)] == [TrialState.PRUNED] * 3
    assert [read_record(trial).reused_from for trial in (pruned, first, second)] == [None, 0, 0]
    assert read_record(first).outcome.status == "pruned"
    assert (read_record(first).outcome.seconds, read_record(first).outcome.reports) == (0.0, ())
    # What a sampler reads of a pruned trial: its last intermediate value.
    assert first.intermediate_values == pruned.intermediate_values == {1: pytest.approx(pruned.value)}
    assert first.value == pruned.value
    assert sum(job.spec.digest == read_record(pruned).digest for job in evaluator.jobs) == 1
    assert len(evaluator.jobs) == 4, "answers do not count as trials"


def test_a_twin_of_a_trial_that_is_pruned_is_pruned_with_it(study):
    study.enqueue_trial(PARAMS)
    study.enqueue_trial(PARAMS)
    driver = make_driver(study, trials=2, scales=SCALES)
    first, _ = driver.next_job(), driver.next_job()
    report = Report(first.id, 1, NONE[1])
    assert not driver.on_report(report)
    driver.on_outcome(Outcome(first.id, "pruned", NONE[1], reports=(report,)))
    assert study.trials[1].state is TrialState.PRUNED
    assert read_record(study.trials[1]).reused_from == 0


def test_a_digest_finds_what_finished_before_what_was_pruned_before_what_failed(study):
    spec = next(iter(enumerate_specs(load_space(SPACE))))
    ends = (("failed", "non_finite"), ("pruned", None), ("finished", None))
    for number, (status, cause) in enumerate(ends):
        trial = study.ask()
        record_job(trial, Job(status, spec, "proxy"), note=False)
        record_outcome(trial, Outcome(status, status, NONE[1], cause))
        if status == "finished":
            study.tell(trial, 1.0)
        else:
            study.tell(trial, state=TrialState.FAIL if status == "failed" else TrialState.PRUNED)
        assert find_by_digest(study, spec.digest, causes={"non_finite"}).number == number
    assert find_by_digest(study, spec.digest, seed=1, causes={"non_finite"}) is None


SPACE = """
space:
  terms: 1
  sources: [feature_map, foreground, background]
  transforms: {normalize: [none, standardize, l2_cells]}
  distances: [l1, l2, smooth_l1]
  gradient_ratio: [5, 10, 20, 40, 80]
"""
NUM_EPOCHS = 4
CURVE = {epoch: {"val_loss": 3.0 - 0.5 * epoch, "cka": 0.1 * epoch} for epoch in range(1, NUM_EPOCHS + 1)}


class FourEpochs:
    """As a proxy training reports: after each epoch, the later the clearer."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def evaluate(self, job: Job):
        self.jobs.append(job)
        reports = []
        for epoch, none in CURVE.items():
            gain = quality(job) * epoch / NUM_EPOCHS
            metrics = {"val_loss": none["val_loss"] - gain, "cka": none["cka"] + 0.1 * gain}
            reports.append(Report(job.id, epoch, metrics, seconds=float(epoch)))
            yield reports[-1]
        return Outcome(job.id, "finished", reports[-1].metrics, reports=tuple(reports), seconds=float(NUM_EPOCHS))


@pytest.mark.parametrize("name", ["median", "percentile", "halving", "hyperband"])
def test_every_pruner_stops_trials_by_their_epochs_and_spares_the_best(name):
    config = SearchConfig(sampler="random", pruner=name)
    study = optuna.create_study(direction="maximize", sampler=make_sampler(config), pruner=make_pruner(config))
    evaluator = FourEpochs()
    reward = Reward(("val_loss", "cka"), CURVE)
    run(
        SearchDriver(study, load_space(SPACE), reward, SearchPlan(60, 5, NUM_EPOCHS, 0), SilentObserver()),
        evaluator,
    )
    trained = [trial for trial in study.trials if read_record(trial).reused_from is None]
    assert len(trained) == len(evaluator.jobs) == 60
    pruned = [trial for trial in trained if trial.state is TrialState.PRUNED]
    assert all(trial.number >= 5 for trial in pruned), "the panel, by which rewards are scaled, is trained to its end"
    assert all(max(trial.intermediate_values) < NUM_EPOCHS for trial in pruned)
    epochs = sum(max(trial.intermediate_values) for trial in trained) / (60 * NUM_EPOCHS)
    assert len(pruned) >= 10
    assert epochs < 0.75
    best = max(trained, key=lambda trial: quality(Job("", read_record(trial).spec, "proxy")))
    assert best.state is TrialState.COMPLETE
