"""SGD guided by a trajectory: against NumPy's singular vectors; its limits; what a checkpoint keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autokd.config import Recipe
from autokd.training.optim.trajectory import LENGTH, TrajectoryGuidedSGD
from autokd.training.optim.update import DotUpdate, make_update_rule

RANDOM = np.random.default_rng(5)
NUM_STEPS = LENGTH + 4
SHAPES = ((3, 4), (5,), (2,), (2,))
"""The first two are reached by both losses, the third by the task's alone, the last by the distillation's alone."""
WEIGHTS = [RANDOM.normal(size=shape) for shape in SHAPES]
TASK, DISTILL = ([[RANDOM.normal(size=shape) for shape in SHAPES] for _ in range(NUM_STEPS)] for _ in range(2))
DECAY, MOMENTUM, RATE = 0.1, 0.9, 0.05


def by_hand(rank: int, outside: float) -> list[np.ndarray]:
    """The weights after all steps; directions are right singular vectors of the last task gradients."""
    weights, velocities = [w.copy() for w in WEIGHTS], [np.zeros_like(w) for w in WEIGHTS]
    for step in range(NUM_STEPS):
        rows = [np.concatenate([g.ravel() for g in task[:2]]) for task in TASK[max(0, step + 1 - LENGTH) : step + 1]]
        directions = np.linalg.svd(np.array(rows), full_matrices=False)[2][:rank]
        given = np.concatenate([g.ravel() for g in DISTILL[step][:2]])
        along = directions.T @ (directions @ given)
        guided = along + outside * (given - along)
        sums = [TASK[step][0] + guided[:12].reshape(3, 4), TASK[step][1] + guided[12:], TASK[step][2], DISTILL[step][3]]
        for i, gradient in enumerate(sums):
            velocities[i] = MOMENTUM * velocities[i] + gradient + DECAY * weights[i]
            weights[i] = weights[i] - RATE * velocities[i]
    return weights


def optimizer_of(parameters: list[nn.Parameter], rank: int, outside: float) -> TrajectoryGuidedSGD:
    groups = [{"params": parameters[:1], "weight_decay": DECAY}, {"params": parameters[1:], "weight_decay": DECAY}]
    return TrajectoryGuidedSGD(groups, RATE, MOMENTUM, rank, outside)


def take(optimizer: TrajectoryGuidedSGD, parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        task = {parameters[i]: torch.tensor(TASK[step][i]) for i in (0, 1, 2)}
        distill = {parameters[i]: torch.tensor(DISTILL[step][i]) for i in (0, 1, 3)}
        optimizer.step(task, distill)


@pytest.mark.parametrize(("rank", "outside"), [(1, 0.0), (3, 0.25), (16, 0.5), (4, 1.0)])
def test_the_distillation_gradient_is_projected_on_the_principal_directions_of_the_last_task_gradients(rank, outside):
    parameters = [nn.Parameter(torch.tensor(weight)) for weight in WEIGHTS]
    take(optimizer_of(parameters, rank, outside), parameters, range(NUM_STEPS))
    for found, wanted in zip(parameters, by_hand(rank, outside)):
        np.testing.assert_allclose(found.detach(), wanted, rtol=1e-9)


def test_all_of_the_gradient_outside_is_sgd_on_the_sum_of_both_losses():
    one, other = ([nn.Parameter(torch.tensor(weight)) for weight in WEIGHTS[:2]] for _ in range(2))
    guided = TrajectoryGuidedSGD([{"params": one}], RATE, MOMENTUM, 2, 1.0)
    plain = torch.optim.SGD(other, lr=RATE, momentum=MOMENTUM)
    for step in range(5):
        task, distill = ([torch.tensor(side[step][i]) for i in range(2)] for side in (TASK, DISTILL))
        guided.step(dict(zip(one, task)), dict(zip(one, distill)))
        for p, gradients in zip(other, zip(task, distill)):
            p.grad = sum(gradients)
        plain.step()
    for found, wanted in zip(one, other):
        torch.testing.assert_close(found, wanted)


def test_a_checkpoint_keeps_the_trajectory():
    whole = [nn.Parameter(torch.tensor(weight)) for weight in WEIGHTS]
    take(optimizer_of(whole, 3, 0.25), whole, range(NUM_STEPS))
    first = [nn.Parameter(torch.tensor(weight)) for weight in WEIGHTS]
    before = optimizer_of(first, 3, 0.25)
    take(before, first, range(9))
    second = [nn.Parameter(p.detach().clone()) for p in first]
    after = optimizer_of(second, 3, 0.25)
    after.load_state_dict(before.state_dict())
    take(after, second, range(9, NUM_STEPS))
    for found, wanted in zip(second, whole):
        assert torch.equal(found, wanted)


def test_gradients_of_zero_have_no_direction():
    parameter = nn.Parameter(torch.ones(3))
    optimizer = TrajectoryGuidedSGD([{"params": [parameter]}], 1.0, MOMENTUM, 4, 0.5)
    optimizer.step({parameter: torch.zeros(3)}, {parameter: torch.full((3,), 0.5)})
    assert parameter.tolist() == [0.75] * 3


def test_a_recipe_with_the_optimizer_moves_by_two_gradients_and_needs_no_key_that_older_recipes_lack():
    recipe = Recipe(optimizer="trajectory", trajectory_rank=2, trajectory_outside=0.0)
    update_rule = make_update_rule(nn.Linear(2, 1), None, recipe, torch.device("cpu"))
    assert isinstance(update_rule, DotUpdate)
    assert isinstance(update_rule.optimizer, TrajectoryGuidedSGD)
    assert (update_rule.optimizer._rank, update_rule.optimizer._outside) == (2, 0.0)
    assert not {"trajectory_rank", "trajectory_outside"} & set(Recipe().model_dump())
