"""The training loop: repeatable, comparable, honest about what is not finite."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from autokd.config import Backbone, Recipe
from autokd.detector_outputs import DetectorOutputs
from autokd.detectors import build_detector
from autokd.distill import DistillResult, build_distiller
from autokd.distill.distiller import TermValue
from autokd.errors import NonFiniteError
from autokd.presets import load_preset
from autokd.training.distillation import Distillation
from autokd.training.loader import Loader, training_plan
from autokd.training.loop import LossRecord, Schedule, train
from autokd.training.seeds import random_stream
from autokd.training.teacher.cache import LiveTeacher

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch_size=4)


@pytest.fixture
def loader(tiny_data) -> Loader:
    return Loader(tiny_data.train, training_plan(tiny_data.train, RECIPE), RECIPE.batch_size, CPU)


@pytest.fixture
def make_student(tiny_config, tiny_data):
    def make(architecture: str = "fcos", width: int = 8):
        changes = {"architecture": architecture, "backbone": Backbone(width=width), "fpn_channels": width}
        config = tiny_config.student.model_copy(update=changes)
        with random_stream(CPU, 0, "weights"):
            return build_detector(config, tiny_data.num_classes, (64, 64))

    return make


class FakeDistiller(nn.Module):
    """scale * mean(adapter(p3)^2), adapter a factor; optionally draws numbers or breaks at a step."""

    def __init__(self, scale: float = 1.0, draws: bool = False, bad_step: int | None = None) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1, 1))
        self.scale, self.draws, self.bad_step, self.step = scale, draws, bad_step, 0
        self.epochs: list[tuple[int, int, int]] = []

    def begin_epoch(self, epoch: int, num_epochs: int, steps_per_epoch: int) -> None:
        assert self.training
        self.epochs.append((epoch, num_epochs, steps_per_epoch))

    def forward(self, outputs_s, outputs_t, targets) -> DistillResult:
        if self.draws:
            torch.rand(1000)
        raw = (self.factor * outputs_s.pyramid["p3"]).square().mean()
        self.step += 1
        if self.step == self.bad_step:
            raw = raw * math.nan
        weighted = self.scale * raw
        terms = {"feature_map.l2": TermValue(raw.detach(), weighted.detach(), torch.tensor(self.scale))}
        return DistillResult(weighted, terms)


def no_teacher(batch) -> DetectorOutputs:
    return DetectorOutputs({}, {})


def run(student, loader, distillation=None, recipe=RECIPE, **settings):
    return list(train(student, loader, recipe, seed=0, distillation=distillation, **settings))


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("architecture", ["fcos", "faster_rcnn"])
def test_the_same_training_twice_gives_bitwise_equal_weights_and_losses(make_student, loader, architecture):
    results, students = [], []
    for _ in range(2):
        student = make_student(architecture)
        torch.rand(7)  # what was drawn before must not matter
        results.append([replace(result, seconds=0) for result in run(student, loader)])
        students.append(student)
    assert results[0] == results[1]
    assert same_weights(*students)


@pytest.mark.parametrize("architecture", ["fcos", "faster_rcnn"])
def test_a_distiller_without_gradient_ratio_leaves_the_students_training_as_it_is(make_student, loader, architecture):
    """Common random numbers: neither its parameters nor its draws may shift the student's."""
    alone, taught = make_student(architecture), make_student(architecture)
    run(alone, loader)
    run(taught, loader, Distillation(FakeDistiller(scale=0.0, draws=True), no_teacher))
    assert same_weights(alone, taught)


def test_the_distillers_parameters_are_trained_and_stay_out_of_the_student(make_student, loader):
    student, distiller = make_student(), FakeDistiller()
    names = list(student.state_dict())
    run(student, loader, Distillation(distiller, no_teacher))
    assert distiller.factor.item() != 1.0
    assert list(student.state_dict()) == names


def test_the_distiller_is_told_of_each_epoch_of_the_whole_schedule(make_student, loader):
    distiller = FakeDistiller()
    run(make_student(), loader, Distillation(distiller, no_teacher))
    assert distiller.epochs == [(1, 2, 2), (2, 2, 2)]
    cut = FakeDistiller()
    run(make_student(), loader, Distillation(cut, no_teacher), schedule=Schedule(7, stop_after=1))
    assert cut.epochs == [(1, 7, 2)]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "dot"])
def test_every_parameter_of_a_distiller_is_trained_and_none_joins_the_students_weights(
    make_student, loader, tiny_data, optimizer
):
    """Adapters (2-D), biases (1-D), temperatures (0-D), nested generators; frozen ones stay as they are."""

    class Learning(FakeDistiller):
        def __init__(self) -> None:
            super().__init__()
            self.adapter = nn.Conv2d(8, 8, 1)
            self.temperature = nn.Parameter(torch.tensor(2.0))
            self.parts = nn.ModuleList([nn.Sequential(nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3))])
            self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

        def forward(self, outputs_s, outputs_t, targets) -> DistillResult:
            map_BCHW = self.factor * self.parts[0](self.adapter(outputs_s.pyramid["p3"]))
            return DistillResult((map_BCHW / self.temperature + self.frozen[0]).square().mean(), {})

    student, distiller = make_student(), Learning()
    names = list(student.state_dict())
    before = {name: value.clone() for name, value in distiller.state_dict().items()}
    recipe = RECIPE.model_copy(update={"optimizer": optimizer})
    run(student, loader, Distillation(distiller, no_teacher), recipe)
    for name, value in distiller.state_dict().items():
        assert torch.equal(value, before[name]) == (name == "frozen"), name
    assert list(student.state_dict()) == names
    assert not any("adapter" in name or "temperature" in name for name in student.plain_state_dict())


def test_losses_are_means_over_steps_and_the_total_is_their_sum(make_student, loader):
    [first, _] = run(make_student(), loader, Distillation(FakeDistiller(scale=3.0), no_teacher))
    assert first.losses["total"] == pytest.approx(first.task_loss + first.distill_loss)
    assert first.losses["distill/feature_map.l2"] == pytest.approx(
        3 * first.losses["distill/feature_map.l2 before its weight"]
    )
    task_parts = sum(value for name, value in first.losses.items() if name.startswith("task/"))
    assert task_parts == pytest.approx(first.task_loss)


def test_dot_with_a_real_distiller_and_relative_weights_repeats_and_learns(make_student, loader):
    recipe = RECIPE.model_copy(update={"optimizer": "dot", "learning_rate": 1e-2})
    teacher = LiveTeacher(make_student("fcos", width=12))
    students, results = [], []
    for _ in range(2):
        student = make_student()
        batch = next(iter(loader.of_pairs([[(0, 0)]])))
        with random_stream(CPU, 0, "distiller"):
            distiller = build_distiller(
                load_preset("pkd").with_gradient_ratio(20.0),
                student=student(batch.images_BCHW, taps=("fpn",)),
                teacher=teacher(batch),
                num_classes=6,
            )
        results.append(run(student, loader, Distillation(distiller, teacher), recipe))
        students.append(student)
    assert same_weights(*students)
    assert results[0][-1].task_loss < results[0][0].task_loss
    assert all(result.distill_loss > 0 for result in results[0])


def test_a_schedule_cut_off_is_the_beginning_of_the_whole(make_student, loader):
    whole = run(make_student(), loader)
    cut = run(
        make_student(), loader, recipe=RECIPE.model_copy(update={"epochs": 9}), schedule=Schedule(2, stop_after=1)
    )
    assert [replace(r, seconds=0) for r in cut] == [replace(whole[0], seconds=0)]


def test_a_term_that_is_nan_is_named_with_its_step(make_student, loader):
    distillation = Distillation(FakeDistiller(bad_step=3), no_teacher)
    with pytest.raises(NonFiniteError, match=r"distill/feature_map\.l2.* is nan in epoch 2, step 1"):
        run(make_student(), loader, distillation)


def test_a_gradient_that_is_nan_under_finite_losses_is_named(make_student, loader):
    class Root(FakeDistiller):
        def forward(self, outputs_s, outputs_t, targets) -> DistillResult:
            value = (outputs_s.pyramid["p3"] * 0).square().sum().sqrt()  # the root's slope at 0 is infinite
            return DistillResult(value, {})

    with pytest.raises(NonFiniteError, match="gradient norm is nan"):
        run(make_student(), loader, Distillation(Root(), no_teacher))


def test_a_record_looked_at_late_still_blames_the_first_bad_step_and_part():
    record = LossRecord(epoch=4, check_every=10)
    for step in range(7):
        late = math.inf if step >= 5 else 1.0
        early = math.nan if step >= 6 else 1.0
        parts = {"total": early + late, "task": early, "distill": late}
        record.add({name: torch.tensor(value) for name, value in parts.items()})
    with pytest.raises(NonFiniteError, match="distill is inf in epoch 4, step 6"):
        record.result(9, 0.1, 0.0)


def test_a_training_past_its_deadline_stops(make_student, loader):
    with pytest.raises(TimeoutError, match="epoch 1 of 2"):
        run(make_student(), loader, deadline=time.monotonic())


def test_closing_the_generator_stops_the_training(make_student, loader):
    student = make_student()
    training = train(student, loader, RECIPE, seed=0)
    assert next(training).epoch == 1
    training.close()
    assert list(training) == []
