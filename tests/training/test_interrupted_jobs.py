"""Jobs that are interrupted and run again: equal outcomes, time that counts, files that go when the job has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autokd.data import load_datasets
from autokd.jobs import Job, JobPreempted, JobStopped, Outcome, Report, WorkerResources
from autokd.presets import load_preset
from autokd.runtime.containment import run_guarded, stop
from autokd.training import CheckpointFile, TrainingEvaluatorFactory
from autokd.training.assets import TrainingAssets
from autokd.training.checkpoint.file import read_checkpoint, write_checkpoint
from autokd.training.jobs.job_checkpoints import job_key
from autokd.training.jobs.proxy_training import ProxyTraining
from autokd.training.loop import train
from tests.support.training_samples import make_config

CPU = torch.device("cpu")
EVERY_STEP = {"workers": 0, "checkpoint_every_s": 0.0}
RARELY = {"workers": 0, "checkpoint_every_s": 3600.0}


@pytest.fixture
def start(tiny_cache, tmp_path):
    """(reports so far, generator) of a job in a worker of its own that has this configuration."""

    def start(job: Job, run: str = "run", **sections: Any):
        config = make_config(**{"runtime": RARELY, **sections})
        evaluator = TrainingEvaluatorFactory(config, tiny_cache, tmp_path / run)(WorkerResources())
        return run_guarded(evaluator, job)

    return start


def finish(training) -> tuple[list[Report], Outcome]:
    reports = []
    while True:
        try:
            reports.append(next(training))
        except StopIteration as end:
            return reports, end.value


@pytest.fixture
def preempt_after(monkeypatch):
    """Ask the process for its end during the step of this number that is done from now on."""

    def preempt_after(num_steps: int) -> None:
        left = [num_steps]
        plain = CheckpointFile.after_step

        def after_step(self, snapshot) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            plain(self, snapshot)

        monkeypatch.setattr(CheckpointFile, "after_step", after_step)

    return preempt_after


def timeless(outcome: Outcome) -> Outcome:
    def without(metrics):
        return {name: value for name, value in metrics.items() if name != "train_seconds"}

    reports = tuple(replace(r, job_id="", seconds=0.0, metrics=without(r.metrics)) for r in outcome.reports)
    plain = replace(outcome, job_id="", seconds=0.0, artifacts={}, run_dir="", worker="")
    return replace(plain, metrics=without(outcome.metrics), reports=reports)


def checkpoints_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.checkpoint"))


PROXY = Job("trial-00001", load_preset("g_detkd").with_gradient_ratio(20.0), "proxy")
FULL = Job("full-x-s0", load_preset("global_knowledge").with_gradient_ratio(20.0), "full")


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("job", "sections"),
    [
        (PROXY, {"proxy": {"weight_average": 0.9, "frozen": ["stem"]}}),
        (FULL, {"full": {"weight_average": 0.9, "patience": 1, "patience_metric": "val_loss"}}),
    ],
    ids=["proxy", "full"],
)
def test_a_job_preempted_by_sigterm_ends_as_the_uninterrupted_one(start, preempt_after, tmp_path, job, sections, steps):
    _, whole = finish(start(job, "whole", **sections))
    assert whole.status == "finished", whole.message
    preempt_after(steps)
    with pytest.raises(JobPreempted):
        finish(start(job, **sections))
    assert len(checkpoints_in(tmp_path / "run")) == 1
    # A trial that is tried again has another number.
    reports, resumed = finish(start(replace(job, id="trial-00007"), **sections))
    assert timeless(resumed) == timeless(whole)
    assert [report.epoch for report in reports] == [report.epoch for report in whole.reports]
    assert {report.job_id for report in reports} == {"trial-00007"}
    if job.recipe == "full":
        states = [torch.load(o.file("weights"), weights_only=True) for o in (whole, resumed)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0] | states[1])
    assert checkpoints_in(tmp_path) == [], "a job that has ended needs none"


@pytest.mark.parametrize(("used_s", "steps_s"), [(500.0, 400.0), (1500.0, 500.0), (1700.0, 1500.0)])
def test_the_time_of_earlier_processes_counts_from_their_first_steps_on(
    start, preempt_after, tmp_path, used_s, steps_s
):
    sections = {"proxy": {"timeout_s": 1000.0}}
    preempt_after(1)
    with pytest.raises(JobPreempted):
        finish(start(PROXY, **sections))
    [path] = checkpoints_in(tmp_path)
    saved = read_checkpoint(path, path.stem)
    assert saved is not None
    assert saved["seconds"] > saved["steps_s"] >= saved["position"]["seconds"] > 0
    write_checkpoint(path, path.stem, {**saved, "seconds": used_s, "steps_s": steps_s})
    reports, outcome = finish(start(PROXY, **sections))
    if steps_s < 1000:
        assert outcome.status == "finished"
        assert outcome.seconds > reports[1].seconds > reports[0].seconds > used_s
    else:
        assert outcome.cause == "timeout"
        assert "after 2 steps" in outcome.message
    assert checkpoints_in(tmp_path) == [], "a job that is out of time would end so again"


def test_a_pruned_job_leaves_no_checkpoint_and_a_closed_one_does(start, tmp_path):
    sections = {"runtime": EVERY_STEP}
    training = start(PROXY, **sections)
    next(training)
    training.close()
    assert len(checkpoints_in(tmp_path)) == 1
    reports, outcome = finish(start(PROXY, **sections))
    assert [report.epoch for report in reports] == [1, 2]
    assert outcome.status == "finished"
    training = start(PROXY, **sections)
    next(training)
    stop(training)
    assert checkpoints_in(tmp_path) == []


def test_an_evaluator_that_does_not_know_of_stopping_is_closed():
    ended = []

    class Plain:
        def evaluate(self, job):
            try:
                yield Report(job.id, 1, {})
            finally:
                ended.append(job.id)

    training = run_guarded(Plain(), PROXY)
    next(training)
    stop(training)
    assert ended == [PROXY.id]
    with pytest.raises(StopIteration):
        next(training)


def test_an_evaluator_that_catches_stopping_does_not_go_on():
    class Stubborn:
        def evaluate(self, job):
            try:
                yield Report(job.id, 1, {})
            except JobStopped:
                yield Report(job.id, 2, {})

    training = run_guarded(Stubborn(), PROXY)
    next(training)
    stop(training)
    with pytest.raises(StopIteration):
        next(training)


def test_a_bug_keeps_the_checkpoint_and_a_failure_that_recurs_does_not(start, tmp_path, monkeypatch):
    sections = {"runtime": EVERY_STEP}
    for error, kept in ((OSError("no space left"), 1), (FloatingPointError("a bug"), 1), (TimeoutError("late"), 0)):

        def fail(self, *arguments, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(ProxyTraining, "measure_epoch", fail)
            _, outcome = finish(start(PROXY, **sections))
        assert outcome.status == "failed"
        assert len(checkpoints_in(tmp_path)) == kept, error


def test_without_the_setting_nothing_is_saved(start, preempt_after, tmp_path):
    _, outcome = finish(start(PROXY, runtime={"workers": 0, "checkpoint_every_s": None}))
    assert outcome.status == "finished"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_key_is_that_of_all_that_the_training_depends_on(tiny_cache):
    def key(job: Job = PROXY, **sections: Any) -> str:
        return job_key(job, TrainingAssets(make_config(**sections), tiny_cache, CPU))

    plain = key()
    assert key(replace(PROXY, id="other")) == plain
    assert key(proxy={"timeout_s": 1.0}) == key(runtime=EVERY_STEP) == plain
    changed = [
        key(replace(PROXY, seed=1)),
        key(replace(PROXY, spec=load_preset("fitnet"))),
        key(replace(PROXY, spec=None)),
        key(replace(PROXY, recipe="full")),
        key(data={"num_train": 7}),
        key(student={"fpn_channels": 16}),
        key(teacher={"train": {"epochs": 1, "batch_size": 4}}),
        key(proxy={"learning_rate": 1e-3}),
        key(proxy={"epochs": 3}),
        key(proxy={"warm_start": {"epochs": 2}}),
    ]
    assert len({plain, *changed}) == 1 + len(changed)
    cut = {"of_epochs": 9}
    assert key(proxy={"epochs": 1, **cut}) == key(proxy={"epochs": 3, **cut}), "a longer part of the same schedule"


@pytest.mark.parametrize("kind", ["teacher", "warm_start"])
def test_what_is_trained_into_the_cache_goes_on_too(preempt_after, tmp_path, kind):
    def weights(cache: Path):
        assets = TrainingAssets(make_config(runtime=RARELY, data={"num_train": 6}), cache, CPU)
        if kind == "teacher":
            return assets.teachers.first.build(CPU).state_dict()
        return assets.students.warm(0).state_dict()

    whole = weights(tmp_path / "whole")
    preempt_after(1)
    with pytest.raises(JobPreempted):
        weights(tmp_path / "cache")
    [path] = checkpoints_in(tmp_path / "cache")
    assert path.name.startswith(kind)
    resumed = weights(tmp_path / "cache")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole | resumed)
    assert checkpoints_in(tmp_path) == []


def test_sigterm_outside_of_a_training_ends_the_process_as_before(tiny_config, tiny_cache):
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append("mine"))
    try:
        data = load_datasets(tiny_config.data, tiny_cache)
        assets = TrainingAssets(tiny_config, tiny_cache, CPU, data)
        checkpoints = CheckpointFile(tiny_cache / "unused.checkpoint", "key", 3600.0)
        training = train(
            assets.students.new(0),
            assets.data.training_loader("full"),
            tiny_config.full,
            seed=0,
            checkpoints=checkpoints,
        )
        next(training)
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [], "the training answers it, after its step"
        training.close()
        assert received == ["mine"], "it ended otherwise, and has not answered"
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == ["mine", "mine"]
    finally:
        signal.signal(signal.SIGTERM, before)


KILLED = """
    import sys
    from pathlib import Path
    from autokd.jobs import Job, WorkerResources
    from autokd.presets import load_preset
    from autokd.runtime.containment import run_guarded
    from autokd.training import TrainingEvaluatorFactory
    from tests.support.training_samples import make_config
    import torch

    torch.set_num_threads(1)
    cache, run = map(Path, sys.argv[1:])
    runtime = {"workers": 0, "checkpoint_every_s": 0.2}
    config = make_config(runtime=runtime, full={"epochs": 16, "batch_size": 4})
    evaluator = TrainingEvaluatorFactory(config, cache, run)(WorkerResources())
    spec = load_preset("global_knowledge").with_gradient_ratio(20.0)
    training = run_guarded(evaluator, Job("full-x-s0", spec, "full"))
    print("begun", flush=True)
    while True:
        try:
            report = next(training)
        except StopIteration as end:
            assert end.value.status == "finished", end.value.message
            print("ended", sum(report.metrics["train_loss"] for report in end.value.reports), flush=True)
            break
"""


@pytest.mark.slow
def test_a_full_training_killed_again_and_again_ends_with_the_weights_of_one_left_alone(tmp_path, tiny_cache):
    script = tmp_path / "training.py"
    script.write_text(textwrap.dedent(KILLED))

    def run(folder: str, *, kill: bool) -> str:
        process = subprocess.Popen(
            [sys.executable, str(script), str(tiny_cache), str(tmp_path / folder)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        if kill:
            newest, began = age(tmp_path / folder), time.monotonic()
            while age(tmp_path / folder) == newest and process.poll() is None and time.monotonic() - began < 120:
                time.sleep(0.02)
            time.sleep(0.3)
            process.kill()
        return process.communicate()[0]

    def age(folder: Path) -> int:
        return max((path.stat().st_mtime_ns for path in checkpoints_in(folder)), default=0)

    whole = run("whole", kill=False)
    ends = [run("killed", kill=True) for _ in range(2)]
    assert not any(ends), "killed in the middle"
    assert run("killed", kill=False) == whole
    states = [
        torch.load(next((tmp_path / name).rglob("student.pt")), weights_only=True) for name in ("whole", "killed")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0] | states[1])
    assert checkpoints_in(tmp_path) == []
