"""Trainings with several teachers: each prepared and cached for itself, shares reported, one teacher as ever."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autokd.config import ResolvedConfig, RunConfig, complete_recipes
from autokd.jobs import Job, Outcome, WorkerResources
from autokd.presets import load_preset
from autokd.spec import DistillerSpec
from autokd.training import PrecisionMeter, TrainingEvaluatorFactory, file_digest, prepare, validate
from autokd.training.assets import TrainingAssets
from tests.support.training_samples import taps_bytes

CPU = torch.device("cpu")
SMALL = {"backbone": {"width": 8}, "fpn_channels": 16, "train": {"epochs": 2, "batch_size": 4}}
"""The tiny configuration's own teacher."""
WIDE = {"backbone": {"width": 12}, "fpn_channels": 24, "train": {"epochs": 1, "batch_size": 4}}
TWO_STAGE = {"architecture": "faster_rcnn", "fpn_channels": 16, "train": {"epochs": 1, "batch_size": 4}}
BY_LOGITS = DistillerSpec.from_yaml(
    "{schema: 2, terms: [{source: class_logits, distance: l2, weight: {relative: 10}}]}"
)


@pytest.fixture(scope="session")
def taught_by(tiny_config):
    """The tiny configuration with these teachers."""

    def make(*teachers: dict[str, Any], **settings: Any) -> ResolvedConfig:
        data = tiny_config.model_dump(exclude={"teacher", "teacher_weights"})
        return complete_recipes(RunConfig.model_validate({**data, "teacher": list(teachers), **settings}))

    return make


@pytest.fixture
def make_evaluator(tiny_data, tiny_cache, tmp_path):
    def make(config: ResolvedConfig):
        return TrainingEvaluatorFactory(config, tiny_cache, tmp_path / "run", tiny_data)(WorkerResources())

    return make


def timeless(reports):
    return [
        replace(r, seconds=0, metrics={k: v for k, v in r.metrics.items() if k != "train_seconds"}) for r in reports
    ]


def test_a_list_of_one_trains_bit_for_bit_as_that_teacher(taught_by, tiny_config, make_evaluator, run_job):
    job = Job("t1", load_preset("fgd").with_gradient_ratio(20), "full", seed=1)
    assert taught_by(SMALL) == tiny_config
    one, _ = run_job(make_evaluator(tiny_config), job)
    listed, _ = run_job(make_evaluator(taught_by(SMALL)), job)
    assert timeless(one) == timeless(listed)
    assert not any(name.startswith("teacher_share") for name in one[-1].metrics)


def test_every_teacher_is_trained_measured_and_cached_under_its_number(taught_by, tiny_data, tmp_path):
    stages: list[str] = []
    config = taught_by(SMALL, WIDE)
    made = prepare(config, tiny_data, tmp_path, on_progress=lambda stage, *rest: stages.append(stage))
    assert list(dict.fromkeys(stages)) == [
        "teacher 1",
        "teacher 2",
        "teacher 1 AP",
        "teacher 2 AP",
        "teacher 1 taps, validation",
        "teacher 1 taps, training",
        "teacher 2 taps, validation",
        "teacher 2 taps, training",
        "warm start, seed 0",
    ]
    assets = TrainingAssets(config, tmp_path, CPU, tiny_data)
    for teacher, score in zip(assets.teachers.all, made.scores, strict=True):
        ap = PrecisionMeter(tiny_data.val).measure(teacher.build(CPU), batch_size=4, device=CPU).map_50_95
        assert ap == pytest.approx(score.val_ap)
    assert made.score.val_ap == max(score.val_ap for score in made.scores)
    # 8 x 8, 4 x 4 and 2 x 2 cells of 16 and of 24 channels, two bytes; 8 images in 2 views and 6 in one.
    assert taps_bytes(assets) == 2 * (16 + 24) * (64 + 16 + 4) * (8 * 2 + 6)
    stages.clear()
    prepare(config, tiny_data, tmp_path, on_progress=lambda stage, *rest: stages.append(stage))
    assert stages == []


def test_a_teacher_among_others_is_the_one_that_it_is_alone(taught_by, tiny_config, tiny_cache):
    alone = TrainingAssets(tiny_config, tiny_cache, CPU)
    among = TrainingAssets(taught_by(WIDE, SMALL), tiny_cache, CPU)
    assert among.teachers.all[1].folder == alone.teachers.first.folder
    assert among.teachers.all[1].digest == alone.teachers.first.digest
    assert (
        among.teachers.training_cache("full", teacher=among.teachers.all[1]).folder
        == alone.teachers.training_cache("full").folder
    )
    assert among.teachers.training_cache("full").folder != alone.teachers.training_cache("full").folder


@pytest.mark.parametrize("factors", ["equal", "gap", "gradient", [3, 1]])
def test_shares_are_reported_and_a_job_repeats_itself(taught_by, make_evaluator, run_job, factors):
    config = taught_by(SMALL, WIDE, teacher_weights=factors)
    job = Job("t1", load_preset("fitnet").with_gradient_ratio(20), "proxy")
    one = make_evaluator(config)
    reports, outcome = run_job(one, job)
    assert outcome.status == "finished"
    shares = [outcome.metrics[f"teacher_share_{k}"] for k in (1, 2)]
    assert sum(shares) == pytest.approx(1)
    expected = {"equal": 0.5, "gap": None, "gradient": None}.get(str(factors), 0.75)
    if expected is None:
        assert 0 < shares[0] < 1
        assert shares[0] != 0.5
    else:
        assert shares[0] == pytest.approx(expected)
    assert outcome.metrics["distill_loss"] > 0
    assert timeless(run_job(one, job)[0]) == timeless(reports)


def test_two_teachers_train_another_student_than_either_alone(taught_by, make_evaluator, run_job):
    job = Job("t1", load_preset("fitnet").with_gradient_ratio(20), "full")
    losses = {
        run_job(make_evaluator(taught_by(*teachers)), job)[1].metrics["val_loss"]
        for teachers in ((SMALL,), (WIDE,), (SMALL, WIDE))
    }
    assert len(losses) == 3


def test_cka_is_the_mean_over_the_teachers(taught_by, make_evaluator, run_job, tiny_data, tiny_cache, tiny_config):
    config = taught_by(SMALL, WIDE)
    _, outcome = run_job(make_evaluator(config), Job("t1", None, "full"))
    assets = TrainingAssets(config, tiny_cache, CPU, tiny_data)
    student = assets.students.new(0)
    student.model.load_state_dict(torch.load(outcome.file("weights"), weights_only=True))
    each = [
        validate(student, assets.data.validation_loader(), assets.teachers.validation_cache(teacher=teacher)).cka
        for teacher in assets.teachers.all
    ]
    assert each[0] != each[1]
    assert outcome.metrics["cka"] == pytest.approx(math.fsum(each) / 2)


def test_heads_of_all_teachers_are_read_where_a_term_needs_them(taught_by, make_evaluator, run_job):
    spec = load_preset("crosskd").with_gradient_ratio(10)
    _, outcome = run_job(make_evaluator(taught_by(SMALL, WIDE)), Job("t1", spec, "proxy"))
    assert (outcome.status, outcome.message) == ("finished", "")


def test_what_one_teacher_cannot_supply_is_an_outcome_that_names_it(taught_by, make_evaluator, run_job):
    _, outcome = run_job(make_evaluator(taught_by(SMALL, TWO_STAGE)), Job("t1", BY_LOGITS, "proxy"))
    assert (outcome.status, outcome.cause) == ("failed", "cannot_build")
    assert "teacher 2: this pair cannot supply" in outcome.message


# --------------------------------------------------------------------------------- promoted students


@pytest.fixture
def promote(tmp_path):
    """Put the student that a proxy left where a promoted one is looked for; return the folder."""

    def move(outcome: Outcome) -> Path:
        path = outcome.file("student")
        folder = tmp_path / "run" / "promoted" / file_digest(path)
        folder.mkdir(parents=True)
        shutil.copyfile(path, folder / "weights.pt")
        return folder

    return move


def test_a_promoted_student_teaches_beside_the_teacher(
    taught_by, make_evaluator, run_job, promote, tiny_data, tiny_cache
):
    config = taught_by(SMALL, search={"promote_after": 2})
    one, spec = make_evaluator(config), load_preset("fitnet").with_gradient_ratio(20)
    _, first = run_job(one, Job("t1", spec, "proxy"))
    folder = promote(first)
    _, second = run_job(one, Job("t2", spec, "proxy", promoted=folder.name))
    assert second.status == "finished"
    assert second.metrics["teacher_share_2"] == 0.5
    assert second.metrics["val_loss"] != first.metrics["val_loss"]
    assert second.artifacts == {}, "what learned from a promoted student is not promoted itself"

    assets = TrainingAssets(config, tiny_cache, CPU, tiny_data)
    promoted = assets.teachers.promoted(folder)
    model = promoted.build(CPU)
    left = torch.load(first.file("student"), weights_only=True)
    assert all(torch.equal(value, left[name]) for name, value in model.state_dict().items())
    [batch] = assets.proxy_loader().of_pairs([[(0, 1), (3, 0)]])
    with torch.no_grad():
        expected = model(batch.images_BCHW)
    found = assets.teachers.training_cache("proxy", teacher=promoted)(batch)
    for level, map_BCHW in expected.pyramid.items():
        torch.testing.assert_close(found.pyramid[level], map_BCHW, rtol=2e-3, atol=1e-3)


def test_cka_is_that_with_the_teachers_alone(taught_by, make_evaluator, run_job, promote, tiny_data, tiny_cache):
    config = taught_by(SMALL, search={"promote_after": 2})
    one, spec = make_evaluator(config), load_preset("fitnet").with_gradient_ratio(20)
    folder = promote(run_job(one, Job("t1", spec, "proxy"))[1])
    _, outcome = run_job(one, Job("f1", spec, "full", promoted=folder.name))
    assets = TrainingAssets(config, tiny_cache, CPU, tiny_data)
    student = assets.students.new(0)
    student.model.load_state_dict(torch.load(outcome.file("weights"), weights_only=True))
    found = validate(student, assets.data.validation_loader(), assets.teachers.validation_taps())
    assert outcome.metrics["cka"] == pytest.approx(found.cka)


def test_where_factors_are_numbers_a_promoted_student_gets_their_mean(taught_by, make_evaluator, run_job, promote):
    config = taught_by(SMALL, WIDE, teacher_weights=[3, 1], search={"promote_after": 2})
    one, spec = make_evaluator(config), load_preset("fitnet").with_gradient_ratio(20)
    folder = promote(run_job(one, Job("t1", spec, "proxy"))[1])
    _, outcome = run_job(one, Job("t2", spec, "proxy", promoted=folder.name))
    shares = [outcome.metrics[f"teacher_share_{k}"] for k in (1, 2, 3)]
    assert shares == pytest.approx([3 / 6, 1 / 6, 2 / 6])


def test_a_promoted_student_whose_weights_are_gone_is_an_outcome(taught_by, make_evaluator, run_job):
    one = make_evaluator(taught_by(SMALL, search={"promote_after": 2}))
    _, outcome = run_job(one, Job("t1", load_preset("fitnet"), "proxy", promoted="0123456789abcdef"))
    assert outcome.cause == "cannot_build"
    assert "the promoted student's weights are not there" in outcome.message
