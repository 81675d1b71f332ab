"""Several teachers: their shares by hand, one teacher as without an ensemble, checkpoints, errors that name one.

CKA is computed here in NumPy from its definition, gradients by differentiating plain distillers of the test's own.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from autokd.detector_outputs import DetectorOutputs
from autokd.distill import build_distiller, build_ensemble
from autokd.errors import DistillError, NonFiniteError
from autokd.presets import load_preset
from autokd.spec import DistillerSpec, Weight
from tests.support import distill_cases as cases

L2 = cases.spec_of("feature_map", [], "l2", Weight("absolute", 2.0))
WIDE = cases.outputs(9, seed=1)
NARROW = cases.outputs(6, seed=2)
COARSE = cases.outputs(6, seed=3, levels={"p4": ((6, 8), 16), "p5": ((3, 4), 32)})
"""A teacher that shares two of the student's three levels."""


def ensemble_of(*teachers: DetectorOutputs, spec: DistillerSpec = L2, **settings):
    return build_ensemble(spec, cases.outputs(), teachers, num_classes=3, **settings)


def near(student: DetectorOutputs, noise: float) -> DetectorOutputs:
    """A teacher that represents images as ``student`` does, but for noise."""
    generator = torch.Generator().manual_seed(7)
    return cases.like(student, lambda x_BCHW: x_BCHW + noise * torch.randn(x_BCHW.shape, generator=generator))


def numpy_gap(student: DetectorOutputs, teacher: DetectorOutputs) -> float:
    """1 - linear CKA (Kornblith et al., 2019, section 3), the mean over levels of equal stride."""
    found = []
    for level, stride in student.strides.items():
        for other, other_stride in teacher.strides.items():
            if stride == other_stride:
                maps = student.pyramid[level], teacher.pyramid[other]
                x_RC, y_RC = (m.detach().double().numpy().transpose(0, 2, 3, 1).reshape(-1, m.shape[1]) for m in maps)
                x_RC, y_RC = x_RC - x_RC.mean(0), y_RC - y_RC.mean(0)
                cross = np.linalg.norm(y_RC.T @ x_RC) ** 2
                found.append(1 - cross / (np.linalg.norm(x_RC.T @ x_RC) * np.linalg.norm(y_RC.T @ y_RC)))
    return float(np.mean(found))


# ------------------------------------------------------------------------------------------- the loss


def test_the_loss_is_the_sum_of_the_teachers_losses_by_their_shares():
    ensemble = ensemble_of(WIDE, NARROW, factors=(3.0, 1.0))
    student = cases.outputs()
    alone = [build_distiller(L2, student, teacher, num_classes=3)(student, teacher).total for teacher in (WIDE, NARROW)]
    result = ensemble(student, (WIDE, NARROW))
    assert result.total.item() == pytest.approx(0.75 * alone[0].item() + 0.25 * alone[1].item(), rel=1e-5)
    assert list(result.terms) == ["teacher 1/feature_map.l2", "teacher 2/feature_map.l2"]
    for value, total, share in zip(result.terms.values(), alone, (0.75, 0.25), strict=True):
        assert value.weighted.item() == pytest.approx(share * total.item(), rel=1e-5)
        assert value.weight.item() == pytest.approx(2 * share)
        assert value.raw.item() == pytest.approx(total.item() / 2, rel=1e-5)


def test_equal_teachers_share_equally():
    assert ensemble_of(WIDE, NARROW, COARSE).shares_T.tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("name", ["fitnet", "fgd", "cwd"])
@pytest.mark.parametrize("factors", ["equal", "gap", "gradient", (5.0,)])
def test_one_teacher_gives_bit_for_bit_what_its_distiller_gives(name, factors):
    spec = load_preset(name).with_gradient_ratio(20)
    ensemble = ensemble_of(WIDE, spec=spec, factors=factors, recalibrate_every=2)
    distiller = build_distiller(spec, cases.outputs(), WIDE, num_classes=3, recalibrate_every=2)
    for module in (ensemble, distiller):
        module.begin_epoch(1, 2, 3)
    for seed in range(5):
        totals, gradients = [], []
        for module, teacher in ((ensemble, (WIDE,)), (distiller, WIDE)):
            student = cases.outputs(seed=seed, with_loss=True)
            totals.append(module(student, teacher, cases.TARGETS).total)
            module.zero_grad()
            totals[-1].backward()
            learned = [parameter.grad for parameter in module.parameters()]
            gradients.append([*(student.pyramid[level].grad for level in student.pyramid), *learned])
        assert torch.equal(*totals)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(*gradients, strict=True))


def test_each_teacher_has_adapters_of_its_own():
    ensemble = ensemble_of(WIDE, NARROW, cases.outputs(9, seed=4))
    assert [len(list(distiller.parameters())) for _, distiller in ensemble.named_distillers()] == [6, 0, 6]
    assert len({id(parameter) for parameter in ensemble.parameters()}) == 12


# ------------------------------------------------------------------------------------------ the shares


def test_shares_by_gap_are_in_proportion_to_one_minus_cka():
    student = cases.outputs()
    teachers = (near(student, 0.5), WIDE, COARSE)
    gaps = np.array([numpy_gap(student, teacher) for teacher in teachers])
    assert gaps[0] < 0.5 * gaps[1], "the test's own teachers must differ in their gap"
    ensemble = ensemble_of(*teachers, factors="gap")
    ensemble(student, teachers)
    assert ensemble.shares_T.numpy() == pytest.approx(gaps / gaps.sum(), rel=1e-4)


def test_a_teacher_with_whom_the_student_agrees_still_teaches_a_little():
    student = cases.outputs()
    teachers = (near(student, 0.0), WIDE)
    ensemble = ensemble_of(*teachers, factors="gap")
    ensemble(student, teachers)
    assert ensemble.shares_T[0].item() == pytest.approx(0.01 / (0.01 + numpy_gap(student, WIDE)), rel=1e-3)


def test_shares_by_gradient_make_every_teacher_pull_equally():
    student = cases.outputs()
    teachers = (near(student, 0.1), NARROW, cases.like(NARROW, lambda x_BCHW: 30 * x_BCHW))
    norms = []
    for teacher in teachers:
        total = build_distiller(L2, student, teacher, num_classes=3)(student, teacher).total
        gradients = torch.autograd.grad(total, list(student.pyramid.values()))
        norms.append(math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients)))
    assert max(norms) > 10 * min(norms), "the test's own teachers must pull differently"
    ensemble = ensemble_of(*teachers, factors="gradient")
    ensemble(student, teachers)
    inverse = 1 / np.array(norms)
    assert ensemble.shares_T.numpy() == pytest.approx(inverse / inverse.sum(), rel=1e-4)
    pulls = ensemble.shares_T.numpy() * np.array(norms)
    assert pulls == pytest.approx(np.full(3, pulls[0]), rel=1e-4)


def test_gradient_shares_of_half_precision_taps_are_those_of_full_precision():
    student = cases.outputs()
    teachers = (near(student, 0.1), cases.like(NARROW, lambda x_BCHW: 30 * x_BCHW))
    shares = []
    for dtype in (torch.float32, torch.float16):
        spec = cases.spec_of("feature_map", [], "l2", Weight("absolute", 1e-5))
        ensemble = ensemble_of(*teachers, spec=spec, factors="gradient")
        maps = {level: x_BCHW.detach().to(dtype).requires_grad_() for level, x_BCHW in student.pyramid.items()}
        ensemble(cases.bare(replace(student, pyramid=maps)), teachers)
        shares.append(ensemble.shares_T.numpy())
    assert shares[1] == pytest.approx(shares[0], rel=0.02)
    assert shares[0][0] > 5 * shares[0][1]


def test_shares_follow_as_a_moving_mean_and_only_when_they_are_due():
    students = [cases.outputs(seed=seed) for seed in range(11)]
    teachers = (near(students[0], 0.5), WIDE)

    def shares_now(student: DetectorOutputs) -> np.ndarray:
        gaps = np.array([numpy_gap(student, teacher) for teacher in teachers])
        return gaps / gaps.sum()

    ensemble = ensemble_of(*teachers, factors="gap", recalibrate_every=5)
    expected = shares_now(students[0])
    for step, student in enumerate(students):
        ensemble(student, teachers)
        if step in (1, 2, 5, 10):  # the first three steps, then every fifth
            expected = 0.5 * expected + 0.5 * shares_now(student)
        assert ensemble.shares_T.numpy() == pytest.approx(expected, rel=1e-4), step
        assert ensemble.shares_T.sum().item() == pytest.approx(1.0)


def test_evaluation_and_no_grad_measure_nothing():
    student = cases.outputs()
    ensemble = ensemble_of(near(student, 0.5), WIDE, factors="gap")
    teachers = (near(student, 0.5), WIDE)
    ensemble.eval()(student, teachers)
    with torch.no_grad():
        ensemble.train()(student, teachers)
    assert ensemble.shares_T.tolist() == [0.5, 0.5]


def test_a_teacher_without_a_common_level_counts_as_the_mean_of_the_others():
    far = cases.outputs(6, seed=5, levels={"q": ((24, 32), 4)}, size_px=(96, 128))
    student = cases.outputs()
    spec = cases.spec_of("class_logits", [], "l2", Weight("absolute", 1.0))
    teachers = (near(student, 0.5), WIDE, far)
    shapes = student.class_logits.shape
    teachers = tuple(replace(teacher, class_logits=torch.randn(shapes), boxes=student.boxes) for teacher in teachers)
    ensemble = ensemble_of(*teachers, spec=spec, factors="gap")
    ensemble(student, teachers, cases.TARGETS)
    gaps = [numpy_gap(student, teacher) for teacher in teachers[:2]]
    expected = np.array([*gaps, np.mean(gaps)])
    assert ensemble.shares_T.numpy() == pytest.approx(expected / expected.sum(), rel=1e-4)


# --------------------------------------------------------------------------------- checkpoints, errors


@pytest.mark.parametrize("factors", ["gap", "gradient", (2.0, 1.0)])
def test_a_restored_ensemble_goes_on_with_the_same_numbers(factors):
    spec = load_preset("fgd").with_gradient_ratio(20)
    teachers = (near(cases.outputs(), 0.5), WIDE)

    def step(ensemble, seed):
        return ensemble(cases.outputs(seed=seed, with_loss=True), teachers, cases.TARGETS).total

    first = ensemble_of(*teachers, spec=spec, factors=factors, recalibrate_every=4)
    first.begin_epoch(1, 2, 6)
    for seed in range(5):
        step(first, seed)
    second = ensemble_of(*teachers, spec=spec, factors=factors, recalibrate_every=4)
    second.load_state_dict(first.state_dict())
    assert second.step == 5
    for seed in range(5, 10):
        assert torch.equal(step(first, seed), step(second, seed))
    assert torch.equal(first.shares_T, second.shares_T)


def test_what_a_teacher_lacks_is_refused_and_the_teacher_is_named():
    spec = cases.spec_of("class_logits", [], "l2", Weight("absolute", 1.0))
    with pytest.raises(DistillError, match=r"teacher 2: this pair cannot supply.*class_logits"):
        ensemble_of(NARROW, cases.bare(WIDE), spec=spec)


def test_a_teachers_nan_is_blamed_on_that_teacher():
    broken = cases.like(WIDE, lambda x_BCHW: x_BCHW * math.nan)
    with pytest.raises(NonFiniteError, match=r"teacher 2: teacher fpn p3 holds .* NaN"):
        ensemble_of(NARROW, WIDE)(cases.outputs(), (NARROW, broken))


def test_another_number_of_teachers_is_refused():
    with pytest.raises(DistillError, match="3 teachers; this was built for 2"):
        ensemble_of(WIDE, NARROW)(cases.outputs(), (WIDE, NARROW, NARROW))
    with pytest.raises(DistillError, match="3 factors for 2 teachers"):
        ensemble_of(WIDE, NARROW, factors=(1.0, 1.0, 1.0))


def test_no_gradient_reaches_a_teacher():
    student = cases.outputs()
    teachers = (cases.outputs(9, seed=8), cases.outputs(6, seed=9))
    ensemble = ensemble_of(*teachers, factors="gradient")
    ensemble(student, teachers).total.backward()
    assert all(x_BCHW.grad is not None for x_BCHW in student.pyramid.values())
    assert all(x_BCHW.grad is None for teacher in teachers for x_BCHW in teacher.pyramid.values())
