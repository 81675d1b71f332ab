"""Half-precision taps, backward under autocast, and steps without float64, beyond the operators' own conformance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autokd.detector_outputs import DetectorOutputs
from autokd.distill import build_distiller, build_ensemble
from autokd.distill.products import mixed, related, self_related
from autokd.presets import load_preset, preset_names
from autokd.spec import Weight
from autokd.testing.operators.precision import Float64Watch
from autokd.training.loop import LossRecord
from tests.support import distill_cases as cases


def outputs_of(maps: list[np.ndarray], dtype: torch.dtype) -> DetectorOutputs:
    levels = {f"p{3 + i}": torch.from_numpy(x).to(dtype).requires_grad_() for i, x in enumerate(maps)}
    return DetectorOutputs(levels, {name: 8 * 2**i for i, name in enumerate(levels)}, image_size_px=(96, 128))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("activation", [1.0, 30.0, 300.0])
def test_gram_has_its_formulas_gradient_on_half_precision_maps_if_backward_runs_under_autocast(dtype, activation):
    rng = np.random.default_rng(0)
    shape = (2, 24, 12, 16)
    sides = [torch.from_numpy(rng.normal(size=shape) * activation).to(dtype).double().numpy() for _ in range(2)]
    student, teacher = (outputs_of([side], dtype) for side in sides)
    distiller = build_distiller(load_preset("gram"), student, teacher, num_classes=3)
    with torch.autocast("cpu", dtype=dtype):
        total = distiller(student, teacher).total
        (found,) = torch.autograd.grad(total * 1e-3, list(student.pyramid.values()))
    s, t = (side.reshape(2, 24, -1) for side in sides)
    gap = (s @ s.transpose(0, 2, 1) - t @ t.transpose(0, 2, 1)) / s.shape[2]
    # d/ds of the mean of gap^2: gap is symmetric in its channels.
    want = 1e-3 * (4 / (s.shape[2] * gap.size) * gap @ s).reshape(shape)
    assert total.item() == pytest.approx(float((gap**2).mean()), rel=1e-5)
    error = np.linalg.norm(found.double().numpy() - want)
    assert error < torch.finfo(dtype).eps * np.linalg.norm(want) + 6e-8 * want.size**0.5


@pytest.mark.parametrize("preset", preset_names())
def test_a_training_step_of_a_preset_computes_without_float64(preset):
    student, teacher = cases.outputs(4, with_loss=True), cases.outputs(4, seed=1)
    distiller = build_distiller(load_preset(preset), student, teacher, num_classes=3).train()
    with Float64Watch() as watch:
        distiller(student, teacher, cases.TARGETS).total.backward(retain_graph=True)
    assert not watch.found


@pytest.mark.parametrize("level_weighting", ["equal", "gap", "gradient"])
def test_measuring_relative_and_level_weights_takes_no_float64(level_weighting):
    student, teacher = cases.outputs(4, with_loss=True), cases.outputs(4, seed=1)
    spec = cases.spec_of("feature_map", (), "l2", Weight("relative", 1.0, level_weighting=level_weighting))
    distiller = build_distiller(
        spec, student, teacher, num_classes=3, sum_over_processes=lambda norms: norms + norms
    ).train()
    with Float64Watch() as watch:
        distiller(student, teacher).total.backward(retain_graph=True)
    assert not watch.found


@pytest.mark.parametrize("rule", ["gap", "gradient"])
def test_measuring_the_shares_of_teachers_takes_no_float64(rule):
    student, teachers = cases.outputs(4), [cases.outputs(4, seed=seed) for seed in (1, 2)]
    ensemble = build_ensemble(load_preset("fitnet"), student, teachers, 3, rule).train()
    with Float64Watch() as watch:
        ensemble(student, teachers).total.backward()
    assert not watch.found


def test_the_record_of_losses_takes_no_float64_on_its_device():
    record = LossRecord(1, check_every=1)
    with Float64Watch() as watch:
        record.add({"task": torch.tensor(2.0), "total": torch.tensor(3.0)})
        record.add({"task": torch.tensor(4.0), "total": torch.tensor(5.0)})
    assert not watch.found
    assert record.result(1, 0.1, 1.0).losses == {"task": 3.0, "total": 4.0}


def test_the_watch_sees_float64_forward_and_backward():
    x = torch.ones(3, requires_grad=True)
    with Float64Watch() as watch:
        x.double().square().sum().backward()
    assert any("pow" in name for name in watch.found)
    with Float64Watch() as watch:
        x.square().sum().backward()
    assert not watch.found


@pytest.mark.parametrize("shape", [(2, 150, 800), (2, 64, 20), (1, 3, 1), (0, 70, 900)])
def test_products_and_their_gradients_are_those_of_numpy(shape):
    rng = np.random.default_rng(0)
    x, y, w, each = (
        rng.normal(size=size).astype(np.float32)
        for size in (shape, (shape[0], 40, shape[2]), (33, shape[1]), (shape[0], 33, shape[1]))
    )
    bias = rng.normal(size=33).astype(np.float32)
    cases_ = [
        (self_related, (x,), lambda a: a @ a.swapaxes(1, 2), lambda g, a: [(g + g.swapaxes(1, 2)) @ a]),
        (related, (x, y), lambda a, b: a @ b.swapaxes(1, 2), lambda g, a, b: [g @ b, g.swapaxes(1, 2) @ a]),
        (
            mixed,
            (w, x, bias),
            lambda a, b, c: a @ b + c[:, None],
            lambda g, a, b, c: [(g @ b.swapaxes(1, 2)).sum(0), a.T @ g, g.sum((0, 2))],
        ),
        (mixed, (each, x), lambda a, b: a @ b, lambda g, a, b: [g @ b.swapaxes(1, 2), a.swapaxes(1, 2) @ g]),
    ]
    for function, arrays, value, gradients in cases_:
        tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
        exact = [array.astype(np.float64) for array in arrays]
        found, want = function(*tensors), value(*exact)
        g = rng.normal(size=want.shape)
        got = torch.autograd.grad(found, tensors, torch.from_numpy(g).float())
        for a, b in zip((found, *got), (want, *gradients(g, *exact))):
            np.testing.assert_allclose(a.detach().numpy(), b, rtol=1e-4, atol=1e-5 * (1 + np.abs(b).max(initial=0)))
