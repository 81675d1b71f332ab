"""Relative weights: the gradient's ratio is what was asked, at the start and as things drift.

Gradients are measured here by differentiating the task loss and the distiller's total, never by its own factors.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from autokd.config import Recipe
from autokd.detector_outputs import DetectorOutputs
from autokd.distill import build_distiller
from autokd.distill.build import RECALIBRATE_EVERY
from autokd.errors import DistillError, SpecError
from autokd.spec import DistillerSpec, Weight
from tests.support import distill_cases as cases

TEACHER = cases.outputs(seed=1)


def built(*terms: tuple, teacher: DetectorOutputs = TEACHER, **settings):
    spec = DistillerSpec(tuple(cases.spec_of(*term).terms[0] for term in terms))
    return build_distiller(spec, student=cases.outputs(), teacher=teacher, num_classes=3, **settings)


def relative(source: str, transforms: list[str], distance: str, ratio: float) -> tuple:
    return source, transforms, distance, Weight("relative", ratio)


def norm_of(value: Tensor, outputs: DetectorOutputs) -> float:
    taps = list(outputs.pyramid.values())
    gradients = torch.autograd.grad(value, taps, retain_graph=True, allow_unused=True)
    return float(torch.cat([found.flatten() for found in gradients if found is not None]).norm())


def ratio_of(distiller, outputs, teacher=TEACHER, targets=cases.TARGETS) -> float:
    total = distiller(outputs, teacher, targets).total
    return norm_of(total, outputs) / norm_of(outputs.task_loss, outputs)


@pytest.mark.parametrize("ratio", [0.1, 40.0])
@pytest.mark.parametrize(
    "form", [("feature_map", [], "l2"), ("foreground", ["softmax_cells"], "kl"), ("instance", [], "cosine")]
)
def test_the_first_batch_has_the_ratio_that_was_asked(form, ratio):
    outputs = cases.outputs(with_loss=True)
    assert ratio_of(built(relative(*form, ratio)), outputs) == pytest.approx(ratio, rel=1e-4)


def test_a_ratio_is_measured_before_the_adapters():
    teacher = cases.outputs(9, seed=1)
    outputs = cases.outputs(with_loss=True)
    assert ratio_of(built(relative("feature_map", [], "l1", 7.0), teacher=teacher), outputs, teacher) == pytest.approx(
        7, rel=1e-4
    )


def test_two_terms_have_their_own_factors():
    distiller = built(relative("feature_map", [], "l2", 30.0), relative("foreground", ["standardize"], "l1", 5.0))
    outputs = cases.outputs(with_loss=True)
    weights = {name: float(value.weight) for name, value in distiller(outputs, TEACHER, cases.TARGETS).terms.items()}
    for name, form, ratio in [
        ("feature_map.l2", ("feature_map", [], "l2"), 30),
        ("foreground.standardize.l1", ("foreground", ["standardize"], "l1"), 5),
    ]:
        plain = built((*form, Weight("absolute", 1.0)))(outputs, TEACHER, cases.TARGETS).total
        assert weights[name] * norm_of(plain, outputs) / norm_of(outputs.task_loss, outputs) == pytest.approx(
            ratio, rel=1e-4
        )


def test_an_absolute_term_beside_a_relative_one_keeps_its_weight():
    distiller = built(relative("feature_map", [], "l2", 30.0), ("feature_map", [], "l1", Weight("absolute", 2.5)))
    result = distiller(cases.outputs(with_loss=True), TEACHER)
    assert result.terms["feature_map.l1"].weight == 2.5
    assert result.terms["feature_map.l2"].weight != 2.5


@pytest.mark.parametrize("drift", [0.2, 5.0])
def test_the_ratio_is_kept_when_the_scale_of_the_term_drifts(drift):
    distiller = built(relative("feature_map", [], "l2", 20.0), recalibrate_every=5)
    outputs = cases.outputs(with_loss=True)
    for _ in range(10):
        distiller(outputs, TEACHER)
    teacher = cases.like(TEACHER, lambda map_BCHW: map_BCHW * drift)
    drifted = ratio_of(distiller.eval(), outputs, teacher)
    distiller.train()
    assert abs(drifted / 20 - 1) > 0.2, "the test's own drift is too small"
    for _ in range(40):
        distiller(outputs, teacher)
    assert ratio_of(distiller.eval(), outputs, teacher) == pytest.approx(20, rel=0.02)


def test_recipes_and_distillers_agree_on_how_often_is_usual():
    assert Recipe().recalibrate_every == RECALIBRATE_EVERY


@pytest.mark.parametrize(("every", "measured_at"), [(10, [1, 2, 10, 20]), (None, [1, 2])])
def test_between_measurements_the_factor_stays(every, measured_at):
    distiller = built(relative("feature_map", [], "l2", 20.0), recalibrate_every=every)
    weights = []
    for step in range(21):
        outputs = cases.outputs(seed=step + 10, with_loss=True)
        weights.append(float(distiller(outputs, TEACHER).terms["feature_map.l2"].weight))
    changes = [step for step in range(1, 21) if weights[step] != weights[step - 1]]
    assert changes == measured_at


@pytest.mark.parametrize(("gap", "is_rounding"), [(1e-6, True), (1e-3, False)])
def test_one_odd_batch_does_not_blow_the_factor_up(gap, is_rounding):
    distiller = built(relative("feature_map", [], "l2", 20.0), recalibrate_every=1)
    for seed in range(5):
        distiller(cases.outputs(seed=seed + 10, with_loss=True), TEACHER)
    outputs = cases.outputs(with_loss=True)
    before = float(distiller(outputs, TEACHER).terms["feature_map.l2"].weight)
    almost_equal = cases.like(outputs, lambda map_BCHW: map_BCHW + gap)
    after = float(distiller(outputs, almost_equal).terms["feature_map.l2"].weight)
    assert after == before if is_rounding else before < after < 10 * before


def test_three_measurements_in_a_row_move_the_factor_to_another_scale():
    distiller = built(relative("feature_map", [], "l2", 20.0), recalibrate_every=1000)
    outputs = cases.outputs(with_loss=True)
    close = cases.like(outputs, lambda map_BCHW: map_BCHW + 1e-3)
    distiller(outputs, TEACHER)
    for _ in range(3):
        distiller(outputs, close)
    assert ratio_of(distiller.eval(), outputs, close) == pytest.approx(20, rel=1e-3)


def test_a_factor_that_was_too_large_falls_at_once():
    distiller = built(relative("feature_map", [], "l2", 20.0))
    outputs = cases.outputs(with_loss=True)
    distiller(outputs, cases.like(outputs, lambda map_BCHW: map_BCHW + 1e-3))
    assert ratio_of(distiller, outputs) == pytest.approx(20, rel=1e-3)


def test_measurements_that_agree_give_their_geometric_mean_then_a_moving_mean():
    distiller = built(relative("feature_map", [], "l2", 20.0), recalibrate_every=5)
    logs, found = [], []
    for step in range(11):
        outputs = cases.outputs(seed=step + 10, with_loss=True)
        teacher = cases.like(TEACHER, lambda map_BCHW, s=step: map_BCHW * (1 + s % 3))
        plain = sum((s - t).square().mean() for s, t in zip(outputs.pyramid.values(), teacher.pyramid.values()))
        logs.append(np.log(20 * norm_of(outputs.task_loss, outputs) / norm_of(plain, outputs)))
        found.append(np.log(float(distiller(outputs, teacher).terms["feature_map.l2"].weight)))
    first = np.mean(logs[:3])
    want = [logs[0], np.mean(logs[:2]), first, first, first, (first + logs[5]) / 2]
    want += [want[5]] * 4 + [(want[5] + logs[10]) / 2]
    assert found == pytest.approx(want, rel=1e-4)


def test_a_term_without_gradient_so_far_has_factor_0_and_is_measured_as_soon_as_it_has_one():
    distiller = built(relative("foreground", [], "l2", 20.0), recalibrate_every=1000)
    for seed in range(8):
        outputs = cases.outputs(seed=seed + 10, with_loss=True)
        result = distiller(outputs, TEACHER, cases.boxes([], []))
        assert result.total == 0
        assert result.terms["foreground.l2"].weight == 0
    assert ratio_of(distiller, outputs) == pytest.approx(20, rel=1e-4)
    distiller(outputs, TEACHER, cases.boxes([], []))
    assert ratio_of(distiller.eval(), outputs) == pytest.approx(20, rel=1e-4), "a batch without boxes forgot the factor"


def test_without_gradients_and_in_eval_mode_the_last_factor_serves():
    distiller = built(relative("feature_map", [], "l2", 20.0))
    trained = distiller(cases.outputs(with_loss=True), TEACHER)
    other = cases.outputs(seed=9, with_loss=True)
    with torch.no_grad():
        quiet = distiller(other, TEACHER)
    evaluated = distiller.eval()(other, TEACHER)
    without_loss = distiller.train()(replace(other, losses=None), TEACHER)
    for result in (quiet, evaluated, without_loss):
        assert result.terms["feature_map.l2"].weight == trained.terms["feature_map.l2"].weight
        assert result.total.detach() == quiet.total


def test_a_factor_that_was_never_measured_is_an_error_with_its_remedy():
    for prepared in (lambda d: d, lambda d: d.eval()):
        with pytest.raises(DistillError, match=r"feature_map\.l2.*never been measured.*losses.*absolute weight"):
            prepared(built(relative("feature_map", [], "l2", 20.0)))(cases.outputs(), TEACHER)


def test_the_graph_survives_the_measurement_and_the_factor_is_no_part_of_it():
    outputs = cases.outputs(with_loss=True)
    distiller = built(relative("feature_map", [], "l2", 20.0))
    result = distiller(outputs, TEACHER)
    (outputs.task_loss + result.total).backward()
    factor = float(result.terms["feature_map.l2"].weight)
    for level, map_BCHW in outputs.pyramid.items():
        task = 2 * map_BCHW.detach() / 50
        term = 2 * (map_BCHW.detach() - TEACHER.pyramid[level].detach()) / map_BCHW.numel()
        torch.testing.assert_close(map_BCHW.grad, task + factor * term)


def test_factors_survive_a_checkpoint():
    outputs = cases.outputs(with_loss=True)
    distiller = built(
        relative("feature_map", [], "l2", 20.0), relative("foreground", [], "l1", 3.0), recalibrate_every=7
    )
    for seed in range(5):
        distiller(cases.outputs(seed=seed + 10, with_loss=True), TEACHER, cases.TARGETS)
    revived = built(relative("feature_map", [], "l2", 20.0), relative("foreground", [], "l1", 3.0), recalibrate_every=7)
    revived.load_state_dict(distiller.state_dict())
    for _ in range(6):
        one, other = (d(outputs, TEACHER, cases.TARGETS) for d in (distiller, revived))
        assert one.total == other.total


def test_half_precision_taps_are_measured_without_underflow():
    outputs = cases.outputs(dtype=torch.float16)
    loss = sum((map_BCHW.float() * 1e-7).sum() for map_BCHW in outputs.pyramid.values())
    distiller = built(relative("feature_map", [], "l2", 20.0))
    result = distiller(replace(outputs, losses={"task": loss}), TEACHER)
    full = cases.like(outputs, lambda map_BCHW: map_BCHW.float())
    loss = sum((map_BCHW * 1e-7).sum() for map_BCHW in full.pyramid.values())
    want = built(relative("feature_map", [], "l2", 20.0))(replace(full, losses={"task": loss}), TEACHER)
    assert float(result.terms["feature_map.l2"].weight) == pytest.approx(
        float(want.terms["feature_map.l2"].weight), rel=0.01
    )


def test_task_losses_that_do_not_come_from_the_pyramid_are_an_error_with_its_remedy():
    outputs = cases.outputs(with_loss=True)
    copies = replace(outputs, pyramid={level: map_BCHW * 1.0 for level, map_BCHW in outputs.pyramid.items()})
    with pytest.raises(DistillError, match=r"very tensors that DetectorOutputs\.pyramid holds"):
        built(relative("feature_map", [], "l2", 20.0))(copies, TEACHER)


# ---------------------------------------------------------------------------- schedules and levels


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear_decay", [1, 0.75, 0.5, 0.25]),
        ("warm_up", [0, 1, 1, 1]),
    ],
)
def test_a_schedule_moves_the_weight_over_the_training(schedule, expected):
    """Two epochs of two steps: at the start of each step 0, 1/4, 1/2 and 3/4 of the training are over."""
    student, teacher = cases.outputs(), cases.outputs(seed=1)
    weight = Weight("absolute", 3.0, schedule)
    distiller = build_distiller(cases.spec_of("feature_map", [], "l2", weight), student, teacher, num_classes=3)
    found = []
    for epoch in (1, 2):
        distiller.begin_epoch(epoch, num_epochs=2, steps_per_epoch=2)
        for _ in range(2):
            (value,) = distiller(student, teacher).terms.values()
            found.append(value.weight.item() / 3.0)
    assert found == pytest.approx(expected)
    restored = build_distiller(cases.spec_of("feature_map", [], "l2", weight), student, teacher, num_classes=3)
    restored.load_state_dict(distiller.state_dict())
    assert restored.progress == distiller.progress == 1.0


def level_values(distiller, student, teacher):
    """The unweighted mean squared difference of each level, by hand."""
    pairs = zip(student.pyramid.values(), teacher.pyramid.values())
    return [((s - t) ** 2).mean().item() for s, t in pairs]


def test_layers_by_gradient_give_each_level_the_same_gradient():
    student, teacher = cases.outputs(with_loss=True), cases.outputs(seed=1)
    weight = Weight("absolute", 1.0, level_weighting="gradient")
    distiller = build_distiller(cases.spec_of("feature_map", [], "l2", weight), student, teacher, num_classes=3)
    distiller(student, teacher).total.backward()
    norms = [map_BCHW.grad.norm().item() for map_BCHW in student.pyramid.values()]
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5)
    (term,) = distiller.terms
    assert term.layers.factors_P.mean().item() == pytest.approx(1.0)


def test_layers_by_gap_weigh_in_proportion_to_one_minus_cka():
    student, teacher = cases.outputs(), cases.outputs(seed=1)
    blended = dict(zip(student.pyramid, (0.0, 0.5, 0.9)))
    pyramid = {
        name: ((1 - part) * student.pyramid[name] + part * teacher.pyramid[name]).detach().requires_grad_()
        for name, part in blended.items()
    }
    student = replace(student, pyramid=pyramid)
    weight = Weight("absolute", 1.0, level_weighting="gap")
    distiller = build_distiller(cases.spec_of("feature_map", [], "l2", weight), student, teacher, num_classes=3)
    found = distiller(student, teacher).total.item()
    gaps = []
    for name, map_BCHW in pyramid.items():
        sides = map_BCHW, teacher.pyramid[name]
        x, y = (side.detach().double().permute(0, 2, 3, 1).flatten(0, 2).numpy() for side in sides)
        x, y = x - x.mean(0), y - y.mean(0)
        cka = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
        gaps.append(1 - cka)
    factors = np.array(gaps) / np.mean(gaps)
    assert factors[0] > factors[1] > factors[2], "levels that agree more are taught less"
    assert found == pytest.approx(float(factors @ level_values(distiller, student, teacher)), rel=1e-4)


def test_layer_factors_survive_a_checkpoint_and_rest_in_evaluation():
    student, teacher = cases.outputs(), cases.outputs(seed=1)
    spec = cases.spec_of("feature_map", [], "l2", Weight("absolute", 1.0, level_weighting="gradient"))
    distiller = build_distiller(spec, student, teacher, num_classes=3)
    trained = distiller(student, teacher).total.detach()
    restored = build_distiller(spec, student, teacher, num_classes=3).eval()
    before = restored(student, teacher).total.detach()
    restored.load_state_dict(distiller.state_dict())
    assert restored(student, teacher).total.item() == pytest.approx(trained.item())
    assert before != pytest.approx(trained.item())


def test_layers_are_refused_where_a_source_gives_a_single_piece():
    with pytest.raises(SpecError, match="single feature pair"):
        cases.spec_of("semantic_guided", [], "l2", Weight("absolute", 1.0, level_weighting="gap")).canonical()


# ---------------------------------------------------------------------------- several processes


class Processes:
    """Threads in the place of processes, each of which waits in a sum for the others."""

    def __init__(self, number: int) -> None:
        self._meets = threading.Barrier(number, timeout=60)
        self._parts: list[Tensor] = [torch.empty(0)] * number

    def add(self, rank: int, parts: Tensor) -> Tensor:
        self._parts[rank] = parts.clone()
        self._meets.wait()
        total = torch.stack(self._parts).sum(0)
        self._meets.wait()
        return total


def test_a_process_without_objects_takes_the_measurement_of_the_others():
    """Norms of parts of a batch add up as squares; a term that one process cannot measure is not refused for it."""
    form = relative("foreground", [], "l2", 20.0)
    own, other = (cases.outputs(seed=seed, with_loss=True) for seed in (10, 11))
    alone = built(form, sum_over_processes=lambda parts: parts)
    assert alone(own, TEACHER, cases.boxes([], [])).terms["foreground.l2"].weight == 0
    processes = Processes(2)
    batches = [(own, cases.boxes([], [])), (other, cases.TARGETS)]

    def weight_in(rank: int) -> float:
        outputs, targets = batches[rank]
        # A function: the copy that is probed at build must not copy the threads' locks.
        distiller = built(form, sum_over_processes=lambda parts: processes.add(rank, parts))
        return float(distiller(outputs, TEACHER, targets).terms["foreground.l2"].weight)

    with ThreadPoolExecutor(2) as threads:
        found, there = threads.map(weight_in, range(2))
    assert found == there
    plain = built(("foreground", [], "l2", Weight("absolute", 1.0)))(other, TEACHER, cases.TARGETS).total
    task = np.hypot(norm_of(own.task_loss, own), norm_of(other.task_loss, other))
    assert found == pytest.approx(20 * task / norm_of(plain, other), rel=1e-4)


def test_processes_that_see_rounding_alone_measure_nothing_together():
    same = cases.like(cases.outputs(seed=10), lambda map_BCHW: map_BCHW * (1 + 1e-7))
    distiller = built(relative("feature_map", [], "l2", 20.0), sum_over_processes=lambda parts: parts * 4)
    result = distiller(cases.outputs(seed=10, with_loss=True), same, cases.TARGETS)
    assert result.total == 0
    assert distiller.inactive_terms == ("feature_map.l2",)
