"""The default strategy without trainings: rungs continue, the race has what must be beaten, a kill changes nothing."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from autokd.config import load_config
from autokd.detectors import FirstTrials, resolve
from autokd.jobs import Job, Outcome, Report, WorkerResources
from autokd.runtime import InProcessRuntime
from autokd.search import MCTSSampler, decision_role
from autokd.space import Summand, decisions_of_sum, summands_of
from autokd.storage import SearchSummary, StudyFacts, open_study
from autokd.study import SilentObserver
from autokd.study.budget import split_budget
from autokd.study.context import RunContext
from autokd.study.cost import with_cost
from autokd.study.learned import portfolio_of
from autokd.study.phased_driver import PhasedDriver
from autokd.study.resume import RunClock, end_open_trials
from autokd.study.strategy import search_phases

FILE = """
data: {format: shapes}
teacher: {train: {}}
student: {}
space: {parts: {presets: [fitnet, cwd, mgd, g_detkd_sgfi, kd], free: none, number: {min: 1, max: 2}}}
search: {budget: BUDGET}
full: {epochs: 10, seeds: [0, 1, 2], baselines: [none]}
"""
WORTH = {"fitnet": 0.03, "cwd": 0.01, "mgd": 0.02, "g_detkd_sgfi": 0.05, "kd": -0.04}
SEED = 3
"""Seed of candidates: the least that is not reported."""


class Killed(BaseException):
    """As a kill would end the run: nothing is cleaned up."""


@dataclass
class Trainings:
    """A worker whose trainings are numbers: each goes on from its checkpoint, and counts the epochs that it trains."""

    folder: Path
    space: object
    sign: float = 1.0
    dies_at: int = -1
    jobs: list[Job] = field(default_factory=list)
    epochs: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        if len(self.jobs) == self.dies_at:
            raise Killed
        self.jobs.append(job)
        last = job.stop_after or 10
        state = self.folder / f"{job.digest or 'none'}-{job.seed}.checkpoint"
        begun = int(state.read_text()) if state.exists() else 0
        self.epochs.setdefault((job.digest, job.seed), []).extend(range(begun + 1, last + 1))
        reports = []
        for epoch in range(1, last + 1):
            gain = self.gain(job) * epoch / 10
            metrics = {"val_loss": 2.0 - 0.1 * epoch - gain, "cka": 0.5 + gain, "ap": 0.03 * epoch + gain}
            reports.append(Report(job.id, epoch, metrics, seconds=float(epoch)))
            yield reports[-1]
        if job.stop_after is not None:
            state.write_text(str(last))
            return Outcome(
                job.id, "finished", metrics, reports=tuple(reports), seconds=last, artifacts={"checkpoint": str(state)}
            )
        state.unlink(missing_ok=True)
        done = {"val_ap": 0.3 + 0.01 * job.seed + self.gain(job), "test_ap": 0.3}
        return Outcome(job.id, "finished", done, reports=tuple(reports), seconds=last)

    def gain(self, job: Job) -> float:
        if job.spec is None:
            return 0.0
        found = summands_of(self.space, job.spec)
        worth = sum(WORTH[each.part.removesuffix("@published")] / (1 + abs(each.strength - 1)) for each in found)
        return self.sign * worth + int(job.digest[:4], 16) / 65536 * 0.002


def run_on(folder: Path, budget: float, trainings: Trainings | None = None, **changes):
    config = resolve(load_config(FILE.replace("BUDGET", str(budget))))
    trainings = trainings or Trainings(folder, config.space, **changes)
    study = open_study(folder / "study.db", "s", sampler=MCTSSampler(0, role=decision_role))
    facts = StudyFacts(study)
    unused = dict.fromkeys(("preparation", "factory", "cache_dir"))
    run = RunContext(
        config=config, study=study, facts=facts, clock=RunClock(facts), observer=SilentObserver(),
        directory=SimpleNamespace(owner="me", path=folder),
        datasets=SimpleNamespace(train=SimpleNamespace(num_images=80, frames=SimpleNamespace(num_turned=0))), **unused,
    )  # type: ignore[arg-type]  # fmt: skip
    first = {name: decisions_of_sum(config.space, [Summand(name)]) for name in ("kd", "cwd", "fitnet")}
    driver = PhasedDriver(search_phases(run, config.space, FirstTrials(first, (), frozenset(first))))
    try:
        with InProcessRuntime(WorkerResources()) as runtime:
            runtime.run(driver, lambda resources: trainings)
    except Killed:
        end_open_trials(study, "me")
        raise
    return run, driver.result, trainings


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run_on(tmp_path_factory.mktemp("run"), 10)


def test_the_winner_is_the_best_of_the_race_in_which_none_and_a_preset_stand(finished):
    run, results, trainings = finished
    race = run.facts.race
    assert race.in_full
    assert [ended.seed for ended in race.rounds] == [SEED, 0]
    searched = next(each for each in results.distillers if each.name == "searched")
    assert searched.digest == race.finalists[0].digest
    val_ap = {job.digest: trainings.gain(job) for job in trainings.jobs}
    racers = [each.digest for each in race.finalists]
    assert val_ap[searched.digest] == max(val_ap[digest] for digest in racers)
    singles = [job.spec for job in trainings.jobs if job.spec and len(summands_of(run.config.space, job.spec)) == 1]
    assert {spec.digest for spec in singles} & set(racers), "a single preset stands in the race"
    assert "full-none-s3" in {job.id for job in trainings.jobs}


def test_nothing_is_trained_twice_and_the_budget_is_kept(finished):
    run, _, trainings = finished
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in trainings.epochs.values())
    split = split_budget(10, 10, 3)
    raced = run.facts.race.finalists
    extra = sum(10 for (digest, seed) in trainings.epochs if seed != SEED and digest not in {"", raced[0].digest})
    reported = sum(len(epochs) for (digest, seed), epochs in trainings.epochs.items() if seed in (1, 2))
    spent = sum(map(len, trainings.epochs.values())) - reported
    assert extra <= 20
    assert spent / 10 <= split.cost <= 10


def test_trials_begin_with_the_queue_and_are_as_many_as_the_budget_pays(finished):
    run, _, trainings = finished
    rung = [job for job in trainings.jobs if job.stop_after == 1 and job.spec is not None]
    assert len(rung) == split_budget(10, 10, 3).candidates[0]
    assert [summands_of(run.config.space, job.spec)[0].part for job in rung[:3]] == ["kd", "cwd", "fitnet"]
    assert {job.seed for job in rung} == {SEED}


def test_checkpoints_of_candidates_that_were_not_promoted_are_gone(finished):
    _, _, trainings = finished
    left = {path.name.partition("-")[0] for path in trainings.folder.glob("*.checkpoint")}
    assert not left & {job.digest for job in trainings.jobs}


def test_the_cost_stands_in_the_summary(finished):
    run, results, _ = finished
    summary = with_cost(run, results, SearchSummary(sampler="mcts"))
    assert summary.full_trainings == pytest.approx(split_budget(10, 10, 3).cost, abs=0.01)
    assert summary.gain_per_training > 0
    assert summary.training_seconds > 0


@pytest.mark.slow
def test_a_run_that_is_killed_in_a_rung_or_in_the_race_goes_on_to_the_same_end(tmp_path, finished):
    expected = finished[1]
    for dies_at in (3 + split_budget(10, 10, 3).candidates[0], len(finished[2].jobs) - 6):
        folder = tmp_path / str(dies_at)
        folder.mkdir()
        with pytest.raises(Killed):
            run_on(folder, 10, dies_at=dies_at)
        _, results, again = run_on(folder, 10)
        assert [each.digest for each in results.distillers] == [each.digest for each in expected.distillers]
        assert len(again.jobs) == len(finished[2].jobs) - dies_at, "no training that had ended is done again"


def test_none_wins_where_every_distiller_harms(tmp_path):
    run, results, _ = run_on(tmp_path, 10, sign=-1.0)
    worth = {each.digest: each.mean for each in run.facts.race.finalists}
    if max(worth.values()) <= 0:
        assert [each.name for each in results.distillers] == ["none"]
        assert "no distiller helps here" in run.facts.race.verdict
    else:  # kd gains under the opposite sign
        assert results.distillers[-1].name == "searched"


@pytest.mark.parametrize("budget", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_small_and_large_budgets_run_to_their_end(tmp_path, budget):
    _, results, trainings = run_on(tmp_path, budget)
    assert results.distillers[-1].name == "searched"
    assert len([job for job in trainings.jobs if job.stop_after == 1]) == 1 + split_budget(budget, 10, 3).candidates[0]


def test_an_earlier_run_joins_the_portfolio_of_the_next(finished):
    run, results, _ = finished
    text = FILE.replace("BUDGET", f"10, learn_from: ['{run.directory.path}'], portfolio_without: [bccd-fcos]")
    config = load_config(text)
    portfolio = portfolio_of(config, config.space)
    assert {"s", "s (trials)"} <= set(portfolio.pairs)
    assert "bccd-fcos" not in portfolio.pairs
    searched = next(each for each in results.distillers if each.name == "searched")
    learned = {config.space.sum_of(each.summands).digest: each for each in portfolio.records if "s" in each.gains}
    assert learned[searched.digest].gains["s"] > 0
    assert len([each for each in portfolio.records if "s (trials)" in each.gains]) > 5
    assert searched.digest in {config.space.sum_of(each.summands).digest for each in portfolio.queue(config.space)[:6]}
