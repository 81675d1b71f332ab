"""A batch in micro-batches has the gradients of the whole batch, where norms look at one image."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from pydantic import ValidationError

from autokd.config import Recipe, RunConfig
from autokd.detectors import build_detector
from autokd.presets import load_preset
from autokd.training.assets import TrainingAssets
from autokd.training.distillation import losses_of
from autokd.training.jobs.build_distillation import build_distillation
from autokd.training.loader import Loader, training_plan
from autokd.training.loop import train
from autokd.training.micro_batches import MemoryUse, MicroBatchedStep, fitting_size
from autokd.training.optim.optimizer import trainable
from autokd.training.optim.update import TASK, TOTAL
from autokd.training.seeds import random_stream, seed_stream

CPU = torch.device("cpu")
STEP = 3


def student_of(architecture: str, norm: str | None, tiny_data):
    sections = {
        "data": {"format": "shapes", "image_size_px": (64, 64)},
        "teacher": {"train": {}},
        "student": {
            "architecture": architecture, "backbone": {"width": 8, "norm": norm}, "fpn_channels": 8,
        },
    }  # fmt: skip
    section = RunConfig.model_validate(sections).student
    with random_stream(CPU, 0, "weights"):
        return build_detector(section, tiny_data.num_classes, (64, 64)).train()


def batch_of(tiny_data, size=7):
    loader = Loader(tiny_data.train, training_plan(tiny_data.train, Recipe()), size, CPU)
    return next(iter(loader.epoch(0, 1)))


def gradients(parts, name, student, distiller=None):
    leaves = [*trainable(student), *trainable(distiller)]
    found = torch.autograd.grad(parts[name], leaves, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, found)]


def relative_difference(found, wanted):
    distance = torch.stack([(a - b).norm() for a, b in zip(found, wanted, strict=True)]).norm()
    return float(distance / torch.stack([b.norm() for b in wanted]).norm())


@pytest.mark.parametrize("architecture", ["fcos", "retinanet"])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("keeps", [True, False])
def test_gradients_of_the_task_are_those_of_the_whole_batch_in_float64(tiny_data, architecture, size, keeps):
    student = student_of(architecture, "group", tiny_data).double()
    batch = batch_of(tiny_data)
    batch.images_BCHW.data = batch.images_BCHW.double()
    for target in batch.targets:
        target["boxes"] = target["boxes"].double()
    wanted = losses_of(student, batch, None)
    step = MicroBatchedStep(student, None, size, 0, CPU, nullcontext, keeps)
    found = step.losses(batch, STEP)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {name: float(value) for name, value in wanted.items()}, rel=1e-9
    )
    assert relative_difference(gradients(found, TOTAL, student), gradients(wanted, TOTAL, student)) < 1e-9


@pytest.mark.parametrize("preset", ["pkd", "fgd", "crosskd", "global_knowledge"])
def test_a_distiller_sees_the_whole_batch(make_tiny_config, tiny_data, tiny_cache, preset):
    """Relative weights, which are measured on gradients, and terms over several images, are those of the batch."""
    config = make_tiny_config(student={"backbone": {"width": 8, "norm": "group"}}, full={"batch_size": 7})
    assets = TrainingAssets(config, tiny_cache, CPU, tiny_data)
    spec, batch = load_preset(preset, "anchor_free").with_gradient_ratio(5), batch_of(tiny_data)
    results = []
    for micro in (False, True):
        student = assets.students.new(0).train()
        distillation = build_distillation(spec, student, assets.data.training_loader("full"), assets, "full", 0)
        distillation.distiller.train()
        distillation.distiller.begin_epoch(1, 2, 4)
        seed_stream(CPU, 0, "step", STEP)
        if micro:
            parts = MicroBatchedStep(student, distillation, 2, 0, CPU, nullcontext).losses(batch, STEP)
        else:
            parts = losses_of(student, batch, distillation)
        results.append((parts, [gradients(parts, name, student, distillation.distiller) for name in (TASK, TOTAL)]))
    (whole, wanted), (cut, found) = results
    assert {name: float(value) for name, value in cut.items()} == pytest.approx(
        {name: float(value) for name, value in whole.items()}, rel=2e-4, abs=1e-5
    )
    for ours, theirs in zip(found, wanted):
        assert relative_difference(ours, theirs) < 1e-3


def test_statistics_of_norms_move_once_a_micro_batch(tiny_data):
    student, batch = student_of("fcos", "batch", tiny_data), batch_of(tiny_data, 6)
    norm = next(module for module in student.modules() if isinstance(module, torch.nn.BatchNorm2d))
    parts = MicroBatchedStep(student, None, 2, 0, CPU, nullcontext, keeps_gradients=False).losses(batch, STEP)
    parts[TOTAL].backward()
    assert int(norm.num_batches_tracked) == 3


def test_a_training_by_micro_batches_ends_as_one_by_batches(tiny_data):
    weights = []
    for size in (None, 3):
        student = student_of("fcos", "group", tiny_data)
        recipe = Recipe(epochs=2, batch_size=8, micro_batch_size=size, optimizer="sgd", learning_rate=1e-3)
        loader = Loader(tiny_data.train, training_plan(tiny_data.train, recipe), 8, CPU)
        start = torch.cat([p.detach().flatten() for p in trainable(student)])
        for _ in train(student, loader, recipe, seed=0):
            pass
        weights.append(torch.cat([p.detach().flatten() for p in trainable(student)]) - start)
    whole, cut = weights
    assert float((whole - cut).norm() / whole.norm()) < 1e-4


def test_a_cpu_takes_the_whole_batch_and_a_gpu_what_fits(tiny_data):
    assert fitting_size(student_of("fcos", "group", tiny_data), batch_of(tiny_data), nullcontext) == 7
    use = MemoryUse(of_one=30, of_two=50)  # 10 for the student, 20 an image
    assert [use.fitting(free, 16) for free in (10, 100, 200, 10_000)] == [1, 3, 7, 16]


def test_students_whose_losses_cannot_be_joined_are_refused():
    sections = {"data": {"format": "shapes"}, "teacher": {"train": {}}, "full": {"micro_batch_size": 2}}
    student = {"framework": "mmdet", "config": "retinanet_r18_fpn_1x_coco"}
    with pytest.raises(ValidationError, match="micro_batch_size is 2, but it is not known"):
        RunConfig.model_validate(sections | {"student": student})
