"""Time limits: the clock starts at the first step, and a limit that follows a measured step changes no number."""

from __future__ import annotations

import time

import pytest
import torch

from autokd.jobs import Job, WorkerResources
from autokd.training import TrainingEvaluatorFactory
from autokd.training.assets import TrainingAssets
from autokd.training.time_limit import LEAST_LIMIT_S, TimeLimit, TimeLimits

CPU = torch.device("cpu")


@pytest.fixture
def run(make_tiny_config, tiny_data, tiny_cache, tmp_path, run_job):
    def run_with(**proxy):
        config = make_tiny_config(proxy={"warm_start": None, **proxy})
        evaluator = TrainingEvaluatorFactory(config, tiny_cache, tmp_path / "run", tiny_data)(WorkerResources())
        return run_job(evaluator, Job("t", None, "proxy"))[1]

    return run_with


def test_what_comes_before_the_first_step_does_not_count(run, monkeypatch):
    build, now, passed_s = TrainingAssets.proxy_loader, time.monotonic, [0.0]

    def slow(self):
        passed_s[0] += 5000.0
        return build(self)

    monkeypatch.setattr(TrainingAssets, "proxy_loader", slow)
    monkeypatch.setattr(time, "monotonic", lambda: now() + passed_s[0])
    outcome = run(timeout_s=2000.0, epochs=1, reward=("val_loss",))
    assert (outcome.status, passed_s[0] >= 5000.0, outcome.seconds >= 5000.0) == ("finished", True, True)


def test_an_outcome_that_ran_out_of_time_names_the_limit(run):
    outcome = run(timeout_s=1e-6)
    assert outcome.cause == "timeout"
    assert outcome.message.endswith("The limit is 1e-06 s from the first step: proxy.timeout_s.")


def test_a_measured_limit_changes_no_number(run):
    limited, unlimited = run(timeout_factor=20.0), run(timeout_factor=None)
    assert limited.status == unlimited.status == "finished"
    numbers = [{k: v for k, v in o.metrics.items() if k != "train_seconds"} for o in (limited, unlimited)]
    assert numbers[0] == numbers[1]


def test_the_limit_is_a_multiple_of_the_measured_steps(make_tiny_config, tiny_data, tiny_cache, monkeypatch):
    config = make_tiny_config(proxy={"epochs": 2, "timeout_factor": 10, "val_subset": 0.5})
    assets = TrainingAssets(config, tiny_cache, CPU, tiny_data)
    limits = TimeLimits(assets)
    monkeypatch.setattr(limits, "_measured", lambda recipe, loader: 100.0)
    # 2 epochs of 2 steps, each measured on 3 of 6 images: as many images as 1.5 steps have.
    found = limits.of("proxy", config.proxy, assets.proxy_loader())
    assert found.seconds == 10 * 100.0 * (4 + 2)
    assert "timeout_factor 10 times 6 steps of 100 s" in found.words
    monkeypatch.setattr(limits, "_step_s", {"proxy": 1e-3})
    assert limits.of("proxy", config.proxy, assets.proxy_loader()).seconds == LEAST_LIMIT_S


def test_full_trainings_with_patience_are_measured_after_every_epoch(make_tiny_config, tiny_data, tiny_cache):
    full = {"epochs": 3, "batch_size": 4, "timeout_factor": 10}
    steps = {}
    for patience in (None, 1):
        config = make_tiny_config(full=full | {"patience": patience})
        assets = TrainingAssets(config, tiny_cache, CPU, tiny_data)
        limits = TimeLimits(assets)
        limits._step_s["full"] = 100.0
        found = limits.of("full", config.full, assets.data.training_loader("full"))
        steps[patience] = found.seconds / (10 * 100.0)
    num_val = tiny_data.val.num_images
    assert steps[1] - steps[None] == pytest.approx(3 * num_val / 4, abs=1.0)
    assert steps[1] > steps[None] + 1


def test_a_step_is_measured_once_for_all_jobs_of_a_recipe(make_tiny_config, tiny_data, tiny_cache, monkeypatch):
    assets = TrainingAssets(make_tiny_config(), tiny_cache, CPU, tiny_data)
    limits, calls = TimeLimits(assets), []
    measured = limits._measured
    monkeypatch.setattr(limits, "_measured", lambda *given: calls.append(given) or measured(*given))
    for _ in range(2):
        assert limits.of("proxy", assets.config.proxy, assets.proxy_loader()).seconds == LEAST_LIMIT_S
    assert len(calls) == 1


def test_other_errors_pass_as_they_are():
    error = ValueError("x")
    assert TimeLimit(1.0, "x").explained(error) is error
    assert TimeLimit().explained(error) is error
