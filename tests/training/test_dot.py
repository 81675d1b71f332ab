"""DOT: two momenta, against NumPy; known limits; who gets which gradient; clipping; precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from autokd.config import Recipe
from autokd.errors import ConfigError
from autokd.training.optim.dot import DistillationOrientedSGD
from autokd.training.optim.optimizer import Precision
from autokd.training.optim.update import DotUpdate, make_update_rule

CPU = torch.device("cpu")
RATES = [0.1, 0.2, 0.05, 0.1]


def by_hand(weight, task, distill, *, task_momentum, distill_momentum, decay, rates=RATES):
    """Steps of v = m v + g (the task's with decay), w -= rate (v_task + v_distill), in float64."""
    v_task = v_distill = np.zeros_like(weight)
    for rate, g_task, g_distill in zip(rates, task, distill):
        v_task = task_momentum * v_task + g_task + decay * weight
        v_distill = distill_momentum * v_distill + g_distill
        weight = weight - rate * (v_task + v_distill)
    return weight


@pytest.fixture
def numbers():
    """A 2 x 3 weight, and two gradients for each of four steps."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 3)), rng.normal(size=(4, 2, 3)), rng.normal(size=(4, 2, 3))


def stepped(weight, task, distill, delta=0.075, decay=0.3):
    parameter = nn.Parameter(torch.tensor(weight))
    optimizer = DistillationOrientedSGD([{"params": [parameter], "weight_decay": decay}], 1.0, 0.9, delta)
    for step, rate in enumerate(RATES):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step(
            {} if task is None else {parameter: torch.tensor(task[step])},
            {} if distill is None else {parameter: torch.tensor(distill[step])},
        )
    return parameter.detach().numpy()


def test_both_gradients_keep_momenta_of_their_own(numbers):
    wanted = by_hand(*numbers, task_momentum=0.825, distill_momentum=0.975, decay=0.3)
    np.testing.assert_allclose(stepped(*numbers), wanted, rtol=1e-12)


@pytest.mark.parametrize("side", ["task", "distill"])
def test_a_parameter_that_one_loss_alone_reaches_keeps_the_plain_momentum_and_the_decay(numbers, side):
    weight, gradients, _ = numbers
    wanted = by_hand(weight, gradients, 0 * gradients, task_momentum=0.9, distill_momentum=0.5, decay=0.3)
    given = (gradients, None) if side == "task" else (None, gradients)
    np.testing.assert_allclose(stepped(weight, *given), wanted, rtol=1e-12)


def test_without_delta_it_is_torchs_sgd_on_the_sum(numbers):
    weight, task, distill = numbers
    parameter = nn.Parameter(torch.tensor(weight))
    plain = torch.optim.SGD([parameter], lr=1.0, momentum=0.9, weight_decay=0.3)
    for step, rate in enumerate(RATES):
        plain.param_groups[0]["lr"] = rate
        parameter.grad = torch.tensor(task[step] + distill[step])
        plain.step()
    np.testing.assert_allclose(stepped(*numbers, delta=0.0), parameter.detach().numpy(), rtol=1e-12)


def test_a_parameter_that_no_loss_reaches_rests_even_under_decay():
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = DistillationOrientedSGD([{"params": [parameter], "weight_decay": 0.5}], 0.1, 0.9, 0.075)
    optimizer.step({}, {})
    assert parameter.detach().unique().tolist() == [1.0]


# --------------------------------------------------------------------------------------- update rules


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Parameter(torch.tensor([[0.5, -1.0]], dtype=torch.float64))
        self.head = nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(1, 1, dtype=torch.float64))


class Distiller(nn.Module):
    def __init__(self):
        super().__init__()
        self.adapter = nn.Parameter(torch.tensor([[1.5]], dtype=torch.float64))


def losses(student, distiller):
    """task = head^2 (a + 2 b), distill = 3 adapter a b, so that all gradients are known by heart."""
    a, b = student.backbone[0]
    task = student.head.square().sum() * (a + 2 * b)
    distill = 3 * distiller.adapter.sum() * a * b
    return {"task": task, "distill": distill, "total": task + distill}


def recipe(**changes):
    settings = {"optimizer": "dot", "dot_delta": 0.05, "weight_decay": 0.1, "gradient_clip_norm": None}
    return Recipe(**{**settings, **changes})


def train_by_hand(num_steps, rate, delta, decay, max_norm=None):
    """The same in Python floats: values and, for each parameter, its two velocities."""
    a, b, head, adapter = 0.5, -1.0, 2.0, 1.5
    v = dict.fromkeys(("a_t", "a_d", "b_t", "b_d", "h", "ad"), 0.0)
    for _ in range(num_steps):
        task = np.array([head**2, 2 * head**2])
        distill = np.array([3 * adapter * b, 3 * adapter * a])
        g_head, g_adapter = 2 * head * (a + 2 * b), 3 * a * b
        if max_norm is not None:
            factor = min(1.0, max_norm / np.sqrt(((task + distill) ** 2).sum() + g_head**2))
            task, distill, g_head = task * factor, distill * factor, g_head * factor
            g_adapter *= min(1.0, max_norm / abs(g_adapter))
        v["a_t"] = (0.9 - delta) * v["a_t"] + task[0] + decay * a
        v["b_t"] = (0.9 - delta) * v["b_t"] + task[1] + decay * b
        v["a_d"] = (0.9 + delta) * v["a_d"] + distill[0]
        v["b_d"] = (0.9 + delta) * v["b_d"] + distill[1]
        v["h"] = 0.9 * v["h"] + g_head + decay * head
        v["ad"] = 0.9 * v["ad"] + g_adapter + decay * adapter
        a, b = a - rate * (v["a_t"] + v["a_d"]), b - rate * (v["b_t"] + v["b_d"])
        head, adapter = head - rate * v["h"], adapter - rate * v["ad"]
    return a, b, head, adapter


@pytest.mark.parametrize("max_norm", [None, 0.5, 1e6])
def test_an_update_rule_moves_student_and_distiller_as_by_hand(max_norm):
    student, distiller = Student(), Distiller()
    update_rule = make_update_rule(student, distiller, recipe(gradient_clip_norm=max_norm), CPU)
    update_rule.set_rate(0.01)
    for _ in range(4):
        update_rule.differentiate(losses(student, distiller))
        update_rule.step()
    found = [*student.backbone[0].tolist(), student.head.item(), distiller.adapter.item()]
    assert found == pytest.approx(train_by_hand(4, 0.01, 0.05, 0.1, max_norm), rel=1e-5)
    assert student.unused.item() == 1.0


def test_the_norm_told_is_that_of_the_students_summed_gradient_before_clipping():
    student, distiller = Student(), Distiller()
    update_rule = make_update_rule(student, distiller, recipe(gradient_clip_norm=0.1), CPU)
    norm = update_rule.differentiate(losses(student, distiller))
    # d/da = 4 - 4.5, d/db = 8 + 2.25, d/dhead = 4 * (-1.5)
    assert float(norm) == pytest.approx(np.sqrt(0.5**2 + 10.25**2 + 6.0**2))


def test_without_delta_the_update_is_momentum_sgd_on_the_total_with_the_usual_clipping():
    student, distiller = Student(), Distiller()
    update_rule = make_update_rule(student, distiller, recipe(dot_delta=0.0, gradient_clip_norm=0.5), CPU)
    other, other_distiller = Student(), Distiller()
    groups = [*other.parameters(), *other_distiller.parameters()]
    plain = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=0.1)
    update_rule.set_rate(0.01)
    for _ in range(5):
        update_rule.differentiate(losses(student, distiller))
        update_rule.step()
        plain.zero_grad()
        losses(other, other_distiller)["total"].backward()
        nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        nn.utils.clip_grad_norm_(other_distiller.parameters(), 0.5)
        plain.step()
    assert student.backbone.tolist()[0] == pytest.approx(other.backbone.tolist()[0], rel=1e-9)
    assert distiller.adapter.item() == pytest.approx(other_distiller.adapter.item(), rel=1e-9)


@pytest.mark.parametrize("is_constant", [True, False])
def test_with_nothing_to_distil_it_is_momentum_sgd_whatever_delta(is_constant):
    """No distillation, or a distillation loss without gradient."""
    student, other = Student(), Student()
    update_rule = make_update_rule(student, None, recipe(), CPU)
    plain = torch.optim.SGD(other.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    update_rule.set_rate(0.01)
    for _ in range(4):
        task = losses(student, Distiller())["task"]
        update_rule.differentiate({"task": task} | ({"distill": torch.tensor(1.0)} if is_constant else {}))
        update_rule.step()
        plain.zero_grad()
        losses(other, Distiller())["task"].backward()
        plain.step()
    assert student.backbone.tolist()[0] == pytest.approx(other.backbone.tolist()[0], rel=1e-9)
    assert student.head.item() == pytest.approx(other.head.item(), rel=1e-9)


def test_a_gradient_that_two_parameters_share_is_clipped_once():
    """Autograd gives both summands of a sum the very same tensor."""
    student = nn.Module()
    student.one, student.other = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2, 2))
    update_rule = make_update_rule(student, None, recipe(gradient_clip_norm=1.0, weight_decay=0.0), CPU)
    update_rule.set_rate(1.0)
    update_rule.differentiate({"task": (3 * (student.one + student.other)).sum()})
    update_rule.step()
    assert student.one.detach().unique().item() == pytest.approx(-1 / np.sqrt(8), rel=1e-5)
    assert torch.equal(student.one, student.other)


# ---------------------------------------------------------------------------------------- the recipe


@pytest.mark.parametrize("delta", [-0.01, 0.1, 0.5])
def test_a_delta_that_would_not_let_a_buffer_decay_is_refused(delta):
    with pytest.raises(ValidationError, match="dot_delta"):
        Recipe(optimizer="dot", dot_delta=delta)


def test_a_card_with_float16_only_trains_dot_in_full_precision_or_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    cuda = torch.device("cuda")
    assert not Precision(cuda, "auto", DotUpdate.can_scale).is_mixed
    with pytest.raises(ConfigError, match=r"amp: true .* Set 'amp: false' or 'auto'"):
        Precision(cuda, True, DotUpdate.can_scale)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert Precision(cuda, True, DotUpdate.can_scale).is_mixed
