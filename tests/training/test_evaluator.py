"""The evaluator: what a job reports, what it leaves, and how it fails."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch

from autokd.detectors import build_detector
from autokd.distill.distances.elementwise import L2
from autokd.errors import DistillError
from autokd.jobs import Job, JobFailed, WorkerResources
from autokd.presets import load_preset
from autokd.spec import DistillerSpec
from autokd.training import PrecisionMeter, TrainingEvaluatorFactory, prepare, validate
from autokd.training.assets import TrainingAssets

CPU = torch.device("cpu")
TWO_TERMS = DistillerSpec.from_yaml(
    """
    schema: 2
    terms:
    - {source: instance, transforms: [standardize], distance: l2, weight: {relative: 20}}
    - {source: feature_map, transforms: [{softmax_cells: {temperature: 1.0}}], distance: kl, weight: {absolute: 3}}
    """
)


def sizes_of(dataset) -> set[str]:
    """COCO's sizes of the split's objects, from its annotations."""
    areas = [annotation["area"] for annotation in dataset.ground_truth().dataset["annotations"]]
    bounds = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
    return {size for size, (low, high) in bounds.items() if any(low <= area <= high for area in areas)}


@pytest.fixture
def make_evaluator(tiny_config, tiny_data, tiny_cache, tmp_path):
    def make(config=tiny_config):
        return TrainingEvaluatorFactory(config, tiny_cache, tmp_path / "run", tiny_data)(WorkerResources())

    return make


VAL_LOSSES = {
    "val_loss",
    "val_loss/classification",
    "val_loss/bbox_regression",
    "val_loss/bbox_ctrness",
}
"""Validation losses of FCOS: the sum and its parts."""


def timeless(reports):
    return [
        replace(r, seconds=0, metrics={k: v for k, v in r.metrics.items() if k != "train_seconds"}) for r in reports
    ]


def test_a_proxy_reports_the_rewards_parts_after_each_epoch(make_evaluator, run_job):
    reports, outcome = run_job(make_evaluator(), Job("t1", TWO_TERMS, "proxy"))
    assert [report.epoch for report in reports] == [1, 2]
    named = {"train_loss", "train_seconds", "distill_loss", "cka", "ap", "gradient_share/instance.standardize.l2"}
    for report in reports:
        assert set(report.metrics) == named | VAL_LOSSES
        assert 0 < report.metrics["cka"] < 1
    assert (outcome.status, outcome.cause, outcome.artifacts) == ("finished", None, {})
    assert outcome.metrics == reports[-1].metrics
    assert outcome.reports == tuple(reports)
    assert outcome.worker
    assert outcome.seconds > outcome.metrics["train_seconds"] > 0


@pytest.mark.parametrize(
    ("reward", "measured"),
    [
        (("ap",), {"ap"}),
        (("val_loss",), VAL_LOSSES),
        (("val_loss_parts",), VAL_LOSSES),
        (("cka",), VAL_LOSSES | {"cka"}),
    ],
)
def test_a_proxy_measures_only_what_its_reward_needs(make_tiny_config, make_evaluator, run_job, reward, measured):
    config = make_tiny_config(proxy={"reward": reward, "epochs": 1, "val_subset": 0.5})
    [report], _ = run_job(make_evaluator(config), Job("t1", None, "proxy"))
    assert set(report.metrics) - {"train_loss", "train_seconds"} == measured


@pytest.mark.parametrize("recipe", ["proxy", "full"])
def test_the_same_job_twice_gives_bitwise_equal_metrics(make_evaluator, run_job, recipe):
    one = make_evaluator()
    first, outcome = run_job(one, Job("t1", TWO_TERMS, recipe, seed=1))
    run_job(one, Job("t2", None, recipe, seed=1))  # nothing of a job may stay behind in the worker
    again, _ = run_job(one, Job("t1", TWO_TERMS, recipe, seed=1))
    other, other_outcome = run_job(make_evaluator(), Job("t1", TWO_TERMS, recipe, seed=1))
    assert timeless(first) == timeless(again) == timeless(other)
    metrics = [{k: v for k, v in o.metrics.items() if k != "train_seconds"} for o in (outcome, other_outcome)]
    assert metrics[0] == metrics[1]


def test_seeds_change_a_training_and_a_distiller_changes_it_too(make_evaluator, run_job):
    one = make_evaluator()
    jobs = [Job("a", None, "full", 0), Job("b", None, "full", 1), Job("c", load_preset("fitnet"), "full", 0)]
    losses = [run_job(one, job)[1].metrics["val_loss"] for job in jobs]
    assert len(set(losses)) == 3


def test_a_full_training_measures_everything_and_leaves_plain_weights(
    make_evaluator, run_job, tiny_config, tiny_data, tiny_cache
):
    reports, outcome = run_job(make_evaluator(), Job("full/searched 0", TWO_TERMS, "full"))
    assert "val_loss" not in reports[0].metrics
    assert {"val_loss", "cka", "val_ap", "test_ap", "val_ap/disc", "test_ap_50"} <= set(outcome.metrics)
    # The generated objects are small and medium, and every size that occurs is measured on both splits.
    assert {name for name in outcome.metrics if name.startswith("test_ap_")} - {"test_ap_50"} == {
        f"test_ap_{size}" for size in sizes_of(tiny_data.test)
    }
    assert set(outcome.artifacts) == {"weights", "distiller", "detections_val", "detections_test"}
    assert all("jobs/full_searched_0/" in path for path in outcome.artifacts.values())

    student = build_detector(tiny_config.student, tiny_data.num_classes, (64, 64))
    state = torch.load(outcome.file("weights"), weights_only=True)
    assert not any("distill" in name or "adapter" in name for name in state)
    student.model.load_state_dict(state)
    precision = PrecisionMeter(tiny_data.test).measure(student, batch_size=16, device=CPU)
    assert precision.map_50_95 == outcome.metrics["test_ap"]
    assert json.loads(outcome.file("detections_test").read_text()) == list(precision.detections)
    assets = TrainingAssets(tiny_config, tiny_cache, CPU, tiny_data)
    found = validate(student, assets.data.validation_loader(), assets.teachers.validation_taps())
    assert (found.val_loss, found.cka) == (outcome.metrics["val_loss"], outcome.metrics["cka"])
    assert DistillerSpec.from_yaml(outcome.file("distiller")).digest == TWO_TERMS.digest


def failing(monkeypatch, error: BaseException) -> None:
    def fail(self, *args, **settings):
        raise error

    monkeypatch.setattr(L2, "forward", fail)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
    ],
)
def test_memory_that_runs_out_is_an_outcome(make_evaluator, run_job, monkeypatch, error, cause):
    one = make_evaluator()
    failing(monkeypatch, error)
    reports, outcome = run_job(one, Job("t1", load_preset("fitnet"), "proxy"))
    assert (outcome.status, outcome.cause, reports) == ("failed", cause, [])
    monkeypatch.undo()
    assert run_job(one, Job("t2", load_preset("fitnet"), "proxy"))[1].status == "finished"


def test_a_loss_that_is_not_finite_is_an_outcome_that_names_the_term(make_evaluator, run_job, monkeypatch):
    forward = L2.forward
    monkeypatch.setattr(L2, "forward", lambda self, *a, **k: forward(self, *a, **k) * float("inf"))
    _, outcome = run_job(make_evaluator(), Job("t1", load_preset("fitnet"), "proxy"))
    assert outcome.cause == "non_finite"
    assert "feature_map.l2" in outcome.message


def test_a_job_past_its_time_is_an_outcome(make_tiny_config, make_evaluator, run_job):
    config = make_tiny_config(proxy={"timeout_s": 1e-6})
    _, outcome = run_job(make_evaluator(config), Job("t1", None, "proxy"))
    assert (outcome.cause, outcome.status) == ("timeout", "failed")


def test_a_distiller_that_the_pair_cannot_supply_is_an_outcome(make_evaluator, run_job, monkeypatch):
    def refuse(*args, **settings):
        raise DistillError("no level has the stride")

    monkeypatch.setattr("autokd.training.jobs.build_distillation.build_distiller", refuse)
    _, outcome = run_job(make_evaluator(), Job("t1", TWO_TERMS, "proxy"))
    assert (outcome.cause, outcome.message) == ("cannot_build", "no level has the stride")


def test_other_exceptions_are_bugs_whose_traceback_is_kept(make_evaluator, run_job, monkeypatch):
    failing(monkeypatch, RuntimeError("shapes do not match"))
    _, outcome = run_job(make_evaluator(), Job("t1", load_preset("fitnet"), "proxy"))
    assert (outcome.status, outcome.cause) == ("failed", "error")
    assert "in fail" in outcome.message
    assert outcome.message.endswith("RuntimeError: shapes do not match")


def test_an_evaluator_raises_and_leaves_the_naming_to_the_runtime(make_evaluator, monkeypatch):
    failing(monkeypatch, RuntimeError("shapes do not match"))
    with pytest.raises(JobFailed) as raised:
        next(make_evaluator().evaluate(Job("t1", load_preset("fitnet"), "proxy")))
    assert str(raised.value.__cause__) == "shapes do not match"


def test_a_full_training_that_fails_at_its_end_keeps_what_it_has_measured_and_written(
    make_evaluator, run_job, monkeypatch
):
    def full_disk(*args, **settings):
        raise OSError("no space left")

    monkeypatch.setattr("autokd.training.jobs.full_training.save_weights", full_disk)
    reports, outcome = run_job(make_evaluator(), Job("f1", None, "full"))
    assert (outcome.status, outcome.cause) == ("failed", "error")
    assert {"train_loss", "val_ap", "test_ap"} <= set(outcome.metrics)
    assert set(outcome.artifacts) == {"detections_val", "detections_test"}
    assert outcome.reports == tuple(reports)
    assert len(reports) == 2


def test_a_pruned_job_stops_and_the_next_one_is_as_ever(make_evaluator, run_job):
    one = make_evaluator()
    whole, _ = run_job(one, Job("t1", TWO_TERMS, "proxy"))
    training = one.evaluate(Job("t1", TWO_TERMS, "proxy"))
    next(training)
    training.close()
    assert timeless(run_job(one, Job("t1", TWO_TERMS, "proxy"))[0]) == timeless(whole)


def test_a_factory_travels_without_the_data(tiny_config, tiny_data, tiny_cache, tmp_path):
    factory = TrainingEvaluatorFactory(tiny_config, tiny_cache, tmp_path, tiny_data)
    text = pickle.dumps(factory)
    assert len(text) < 20_000
    arrived = pickle.loads(text)
    assert (arrived.config, arrived.datasets) == (tiny_config, None)
    assert arrived.stored == tiny_data.stored != {}
    assert pickle.loads(pickle.dumps(arrived)).stored == arrived.stored


def test_a_worker_opens_the_data_that_the_driver_stored(tiny_config, tiny_data, tiny_cache, tmp_path, monkeypatch):
    arrived = pickle.loads(pickle.dumps(TrainingEvaluatorFactory(tiny_config, tiny_cache, tmp_path, tiny_data)))

    def never(*args, **settings):
        raise AssertionError(f"read again: {args}")

    for name in ("columns.parse_annotation_file", "dataset.read_header", "image_files.stamps_of"):
        monkeypatch.setattr(f"autokd.data.{name}", never)
    data = arrived(WorkerResources()).assets.data.full
    assert [split.fingerprint for split in data.splits] == [split.fingerprint for split in tiny_data.splits]


def test_a_worker_loads_data_and_teacher_once(make_evaluator, run_job, tiny_config, tiny_data, tiny_cache, monkeypatch):
    prepare(tiny_config, tiny_data, tiny_cache)
    one = make_evaluator()
    run_job(one, Job("t1", TWO_TERMS, "proxy"))

    def never(*args, **settings):
        raise AssertionError("loaded again")

    readers = ("data.load_datasets", "teachers.obtain_teacher", "teachers.open_or_build", "students.load_with_digest")
    for name in readers:
        monkeypatch.setattr(f"autokd.training.assets.{name}", never)
    assert run_job(one, Job("t2", None, "proxy"))[1].status == "finished"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_job_on_a_gpu_is_near_the_same_job_on_a_cpu(make_tiny_config, tiny_data, tmp_path, run_job):
    outcomes = []
    for device in ("cpu", "cuda"):
        config = make_tiny_config(full={"amp": False, "epochs": 1})
        factory = TrainingEvaluatorFactory(config, tmp_path / "cache", tmp_path / device, tiny_data)
        outcomes.append(run_job(factory(WorkerResources(device=device)), Job("t1", TWO_TERMS, "full"))[1])
    on_cpu, on_gpu = (outcome.metrics for outcome in outcomes)
    for name in ("train_loss", "val_loss", "cka"):
        assert on_gpu[name] == pytest.approx(on_cpu[name], rel=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_mixed_precision_trains_on_a_gpu(tiny_config, tiny_data, tmp_path, run_job):
    factory = TrainingEvaluatorFactory(tiny_config, tmp_path / "cache", tmp_path / "run", tiny_data)
    _, outcome = run_job(factory(WorkerResources(device="cuda")), Job("t1", TWO_TERMS, "proxy"))
    assert (outcome.status, outcome.message) == ("finished", "")
