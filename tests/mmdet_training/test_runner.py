"""A student distilled inside mmengine's Runner: what it logs, what it saves, how it goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.support.runner_cases import CLASSES

pytestmark = pytest.mark.slow


def weights_of(path):
    return torch.load(path, map_location="cpu", weights_only=False)["state_dict"]


def logged(work: Path) -> list[dict]:
    """The rows of mmengine's log that tell of training steps."""
    (path,) = work.glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in rows if "loss" in row]


def test_a_training_logs_every_term_and_adds_its_loss_to_the_task(folder, runner_of):
    where = folder()
    runner_of(where, log_processor=dict(window_size=1)).train()
    rows = logged(where / "work")
    assert len(rows) == 6
    for row in rows:
        own = sum(row[name] for name in ("loss_cls", "loss_bbox", "loss_dfl"))
        terms = [row[name] for name in row if name.startswith("distill/") and name != "distill/loss"]
        assert len(terms) == 2
        assert all(value > 0 for value in terms)
        assert row["distill/loss"] == pytest.approx(sum(terms), rel=1e-4)
        assert row["loss"] == pytest.approx(own + row["distill/loss"], rel=1e-4)


def test_the_student_that_is_taken_out_loads_in_plain_mmdet(folder, runner_of, capfd):
    from mmdet.apis import init_detector

    from autokd.mmdet_training import take_out_student

    where = folder(teacher="faster_rcnn", terms="terms: [{source: feature_map, distance: l2, weight: {relative: 20}}]")
    runner = runner_of(where)
    runner.train()
    student = take_out_student(where / "work" / "epoch_2.pth", where / "student.pth")
    capfd.readouterr()
    plain = init_detector(str(where / "student.py"), str(student), device="cpu")
    printed = "".join(capfd.readouterr())
    assert "missing keys" not in printed
    assert "unexpected key" not in printed
    assert plain.dataset_meta["classes"] == CLASSES
    trained = runner.model.student.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in plain.state_dict().items())


def test_resuming_equals_training_through(folder, runner_of):
    where = folder()
    through = runner_of(where, "through")
    through.train()
    again = runner_of(where, "resumed", load_from=str(where / "through" / "epoch_1.pth"), resume=True)
    again.train()
    assert again.iter == 6
    assert len(logged(where / "resumed")) == 3, "one epoch was left"
    expected, found = through.model.state_dict(), again.model.state_dict()
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert through.model.distiller.get_extra_state() == again.model.distiller.get_extra_state()
    assert through.model.distiller.step == 6


def test_the_distiller_is_trained_and_the_teacher_is_not(folder, runner_of):
    wide = {"model.neck.out_channels": 24, "model.bbox_head.in_channels": 24}
    where = folder(options=wide)
    runner = runner_of(where, train_cfg__max_epochs=1, train_cfg__val_interval=5)
    teacher = runner.model.teacher
    taught = {name: value.clone() for name, value in teacher.detector.state_dict().items()}
    adapters = [value.clone() for value in runner.model.distiller.parameters()]
    assert adapters, "a distiller of features has adapters"
    runner.train()
    in_optimizer = {id(p) for group in runner.optim_wrapper.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in runner.model.distiller.parameters()} <= in_optimizer
    assert not any(id(p) in in_optimizer for p in teacher.detector.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(adapters, runner.model.distiller.parameters()))
    assert all(torch.equal(taught[name], value) for name, value in teacher.detector.state_dict().items())
    saved = weights_of(where / "work" / "epoch_1.pth")
    assert {name.split(".")[0] for name in saved} == {"student", "distiller"}


@pytest.mark.parametrize("update_buffers", [False, True])
def test_averaged_weights_are_saved_and_resumed(folder, runner_of, update_buffers):
    where = folder()
    hook = dict(type="EMAHook", momentum=0.3, update_buffers=update_buffers)
    runner = runner_of(where, custom_hooks=[hook])
    runner.train()
    averaged = weights_of(where / "work" / "epoch_2.pth")
    name = "student.backbone.conv1.weight"
    assert not torch.equal(averaged[name], runner.model.state_dict()[name])
    again = runner_of(where, custom_hooks=[hook], resume=True, train_cfg__max_epochs=3)
    again.train()
    assert again.epoch == 3


def test_half_precision_autocast_trains(folder, runner_of):
    """mmengine's AMP wrapper wants a GPU; what it does to the model is this autocast."""
    runner = runner_of(folder(), train_cfg__max_epochs=1, train_cfg__val_interval=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        runner.train()
    rows = logged(Path(runner.work_dir))
    assert len(rows) == 3
    assert all(math.isfinite(row["loss"]) and row["distill/loss"] > 0 for row in rows)


def test_load_from_takes_a_plain_detectors_checkpoint(folder, runner_of):
    where = folder()
    runner = runner_of(where, load_from=str(where / "teacher.pth"), train_cfg__val_interval=5)
    runner.load_or_resume()
    assert torch.equal(
        runner.model.state_dict()["student.neck.fpn_convs.0.conv.weight"],
        weights_of(where / "teacher.pth")["neck.fpn_convs.0.conv.weight"],
    )
