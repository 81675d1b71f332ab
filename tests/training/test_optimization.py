"""Schedule, parameter groups and clipping."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autokd.config import Recipe
from autokd.detector_outputs import DetectorOutputs
from autokd.distill import build_distiller
from autokd.presets import load_preset
from autokd.training.optim.optimizer import (
    Precision,
    clip_gradients,
    make_optimizer,
    parameter_groups,
    rate_factor,
)


def test_one_cycle_rises_to_the_peak_and_falls_as_torchs_own():
    recipe = Recipe(warmup_fraction=0.3, learning_rate=1.0)
    num_steps = 101  # the peak, 0.3 * 100, is a whole step
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    # torch puts the end of the rise at 0.3 * 101 - 1; this fraction puts it on step 30.
    torch_schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=num_steps, pct_start=31 / 101, div_factor=25, final_div_factor=1e4 / 25
    )
    for step in range(num_steps):
        assert rate_factor(step, num_steps, recipe) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        if step < num_steps - 1:
            torch_schedule.step()


@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("num_steps", [1, 2, 50])
def test_the_rate_stays_between_zero_and_its_peak(warmup, num_steps):
    recipe = Recipe(warmup_fraction=warmup)
    factors = [rate_factor(step, num_steps, recipe) for step in range(num_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert rate_factor(num_steps - 1, num_steps, Recipe(schedule="constant")) == 1.0


def test_norms_and_biases_are_not_decayed_and_the_distiller_has_groups_of_its_own():
    student = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    student[0].bias.requires_grad_(False)
    distiller = nn.Conv2d(4, 8, 1)
    groups = parameter_groups(student, distiller, weight_decay=0.05)
    shapes = {(g["owner"], g["weight_decay"]): [tuple(p.shape) for p in g["params"]] for g in groups}
    assert shapes == {
        ("student", 0.05): [(4, 3, 3, 3)],
        ("student", 0.0): [(4,), (4,)],
        ("distiller", 0.05): [(8, 4, 1, 1)],
        ("distiller", 0.0): [(8,)],
    }


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "dot"])
def test_the_optimizer_has_every_trainable_parameter_of_a_built_distiller_once(optimizer):
    """Adapters for other channels, and whatever operators bring along."""
    outputs = {
        side: DetectorOutputs(
            {"p3": torch.randn(1, channels, 8, 8), "p4": torch.randn(1, channels, 4, 4)}, {"p3": 8, "p4": 16}
        )
        for side, channels in (("student", 4), ("teacher", 6))
    }
    distiller = build_distiller(load_preset("fitnet"), **outputs, num_classes=3)
    assert len(list(distiller.parameters())) > 0
    student = nn.Conv2d(3, 4, 3)
    recipe = Recipe(optimizer=optimizer)
    found = [
        p for g in make_optimizer(parameter_groups(student, distiller, 0.1), recipe).param_groups for p in g["params"]
    ]
    wanted = [*student.parameters(), *(p for p in distiller.parameters() if p.requires_grad)]
    assert sorted(map(id, found)) == sorted(map(id, wanted))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_weight_without_gradient_pull_decays_by_rate_times_decay(name):
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    module = nn.Module()
    module.weight, module.bias = weight, bias
    recipe = Recipe(optimizer=name, learning_rate=0.1, weight_decay=0.5)
    optimizer = make_optimizer(parameter_groups(module, None, recipe.weight_decay), recipe)
    weight.grad, bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
    optimizer.step()
    # SGD: the decay is a gradient, doubled by Nesterov's momentum term (1 + 0.9).
    expected = 1 - 0.1 * 0.5 * (1.9 if name == "sgd" else 1)
    assert weight.detach().unique().tolist() == pytest.approx([expected])
    assert bias.detach().unique().tolist() == [1.0]


def test_clipping_scales_to_the_norm_and_tells_the_norm_before():
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    assert float(clip_gradients([parameter], 1.0)) == pytest.approx(5.0)
    assert parameter.grad.tolist() == pytest.approx([0.6, 0.8], abs=1e-5)
    assert clip_gradients([parameter], None) is None


def test_a_cpu_trains_in_full_precision_even_if_asked_otherwise():
    assert not Precision(torch.device("cpu"), True).is_mixed
