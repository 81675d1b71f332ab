"""The distiller as a whole: pairing, adapters, sharing, errors, precision, checkpoints."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from autokd.detector_outputs import DetectorOutputs
from autokd.distill import build_distiller
from autokd.distill.geometry.levels import pair_levels
from autokd.errors import DistillError, NonFiniteError, SpecError
from autokd.presets import load_preset
from autokd.spec import REGISTRY, DistillerSpec, Operator, Step, Weight
from tests.support import distill_cases as cases

ONE = Weight("absolute", 1.0)
WHOLE_L2 = cases.spec_of("feature_map", [], "l2", ONE)


def built(spec=WHOLE_L2, student=None, teacher=None, **settings):
    student, teacher = student or cases.outputs(), teacher or cases.outputs(seed=1)
    return build_distiller(spec, student=student, teacher=teacher, num_classes=3, **settings)


def levels(*strides, channels=4):
    maps = {f"level{stride}": torch.randn(2, channels, 128 // stride, 128 // stride) for stride in strides}
    return DetectorOutputs(maps, {f"level{stride}": stride for stride in strides})


def test_importing_the_package_does_not_import_torch():
    code = "import sys, autokd.distill; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------------- levels


def test_levels_are_paired_by_stride_whatever_their_names():
    student, teacher = levels(8, 16, 32), levels(4, 8, 32, 64)
    assert [(pair.student, pair.teacher, pair.stride) for pair in pair_levels(student, teacher)] == [
        ("level8", "level8", 8),
        ("level32", "level32", 32),
    ]


def test_pyramids_without_a_common_stride_are_refused_with_both_lists():
    with pytest.raises(DistillError, match=r"level8: 8, level16: 16.*level4: 4, level64: 64"):
        built(student=levels(8, 16), teacher=levels(4, 64))


def test_maps_of_other_sizes_are_compared_where_they_overlap_at_the_top_left():
    student, teacher = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 6, 6)
    outputs_s, outputs_t = (DetectorOutputs({"p3": x}, {"p3": 8}) for x in (student, teacher))
    found = built(student=outputs_s, teacher=outputs_t)(outputs_s, outputs_t).total
    torch.testing.assert_close(found, (student[..., :5, :6] - teacher[..., :5, :6]).square().mean())


def test_maps_of_very_different_sizes_are_refused():
    outputs_s, outputs_t = (DetectorOutputs({"p3": torch.randn(2, 3, n, n)}, {"p3": 8}) for n in (12, 5))
    with pytest.raises(DistillError, match=r"\(12, 12\) cells and the teacher's \(5, 5\)"):
        built(student=outputs_s, teacher=outputs_t)


def test_a_term_is_the_sum_over_the_paired_levels():
    student, teacher = cases.outputs(), cases.outputs(seed=1)
    want = sum((s - t).square().mean() for s, t in zip(student.pyramid.values(), teacher.pyramid.values()))
    torch.testing.assert_close(built()(student, teacher).total, want)


# ----------------------------------------------------------------------------------------- adapters


def test_equal_channels_need_no_parameters():
    assert not list(built().parameters())


def test_other_channels_get_a_1x1_convolution_a_level_that_learns():
    student, teacher = cases.outputs(channels=3), cases.outputs(channels=5, seed=1)
    distiller = built(student=student, teacher=teacher)
    assert sorted(tuple(p.shape) for p in distiller.parameters()) == [(5,)] * 3 + [(5, 3, 1, 1)] * 3
    before = distiller(student, teacher).total
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    before.backward()
    assert all(p.grad is not None and p.grad.any() for p in distiller.parameters())
    optimizer.step()
    assert distiller(student, teacher).total < before


def test_all_terms_share_the_adapters():
    student, teacher = cases.outputs(channels=3), cases.outputs(channels=5, seed=1)
    terms = [cases.spec_of(source, [], "l2", ONE).terms[0] for source in ("feature_map", "foreground", "instance")]
    distiller = built(DistillerSpec(tuple(terms)), student, teacher)
    assert len(list(distiller.parameters())) == 6


def test_learned_parts_start_alike_for_every_spec_and_leave_the_global_random_numbers_alone():
    student, teacher = cases.outputs(channels=3), cases.outputs(channels=5, seed=1)
    torch.manual_seed(1)
    first = built(student=student, teacher=teacher)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))
    second = built(cases.spec_of("instance", ["standardize"], "l1", ONE), student, teacher)
    for one, other in zip(first.adapters.parameters(), second.adapters.parameters()):
        assert torch.equal(one, other)


# ------------------------------------------------------------------------------------------- result


def test_the_result_lists_each_term_before_and_after_its_weight():
    spec = DistillerSpec(
        (
            cases.spec_of("feature_map", ["standardize"], "l2", Weight("absolute", 3.0)).terms[0],
            cases.spec_of("foreground", [], "l1", Weight("absolute", 0.5)).terms[0],
        )
    )
    result = built(spec)(cases.outputs(), cases.outputs(seed=1), cases.TARGETS)
    assert set(result.terms) == {"feature_map.standardize.l2", "foreground.l1"}
    assert result.terms["feature_map.standardize.l2"].weight == 3.0
    for value in result.terms.values():
        torch.testing.assert_close(value.weighted, value.raw * value.weight)
        assert not value.raw.requires_grad
    torch.testing.assert_close(result.total.detach(), sum(value.weighted for value in result.terms.values()))


def test_terms_of_the_same_operators_have_different_names():
    terms = [
        cases.spec_of("feature_map", [Step.of("softmax_cells", temperature=t)], "kl", ONE).terms[0] for t in (1, 2, 4)
    ]
    result = built(DistillerSpec(tuple(terms)))(cases.outputs(), cases.outputs(seed=1))
    name = "feature_map.softmax_cells.kl"
    assert list(result.terms) == [name, f"{name}#2", f"{name}#3"]
    assert len({float(value.raw) for value in result.terms.values()}) == 3


def test_it_computes_in_float32_outside_autocast_whatever_the_taps_are():
    student, teacher = cases.outputs(dtype=torch.bfloat16), cases.outputs(seed=1, dtype=torch.float16)
    distiller = built(student=student, teacher=teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = distiller(student, teacher).total
    assert total.dtype == torch.float32
    want = sum(
        (s.float() - t.float()).square().mean() for s, t in zip(student.pyramid.values(), teacher.pyramid.values())
    )
    torch.testing.assert_close(total, want)
    total.backward()
    assert student.pyramid["p3"].grad.dtype == torch.bfloat16


def test_no_gradient_reaches_a_teacher_that_would_take_one():
    student, teacher = cases.outputs(), cases.outputs(seed=1)
    built()(student, teacher).total.backward()
    assert all(map_BCHW.grad is None for map_BCHW in teacher.pyramid.values())


# ------------------------------------------------------------------------------------------- errors


def test_a_pair_that_lacks_a_tap_is_refused_saying_who_lacks_what():
    bare = DetectorOutputs({}, {}, class_logits=torch.zeros(2, 5, 3))
    with pytest.raises(DistillError, match=r"term feature_map\.l2 needs the teacher's fpn.*teacher has class_logits"):
        built(teacher=bare)


def test_an_ill_typed_spec_is_refused():
    with pytest.raises(SpecError, match="kl"):
        built(cases.spec_of("feature_map", [], "kl", ONE))


def test_a_term_that_cannot_depend_on_the_student_is_refused():
    single_cells = {"p3": ((1, 1), 8), "p4": ((1, 1), 16)}
    pair = [cases.outputs(seed=seed, levels=single_cells, size_px=(8, 8)) for seed in (0, 1)]
    for dead in (["softmax_cells"], "kl"), (["l2_cells"], "l2"):
        with pytest.raises(DistillError, match=r"does not depend on the student"):
            build_distiller(cases.spec_of("feature_map", *dead, ONE), *pair, num_classes=3)


@pytest.mark.parametrize("steps", [["softmax_cells"], ["l2_cells"], ["max_pool"]])
def test_a_step_that_compares_cells_is_refused_where_a_single_one_is_left(steps):
    spec = cases.spec_of("instance", [Step.of("max_pool", window=4), *steps], "l1", ONE)
    with pytest.raises(SpecError, match="a single cell a sample is left"):
        built(spec)


def test_boxes_are_asked_for_only_by_sources_that_look_at_them():
    student, teacher = cases.outputs(), cases.outputs(seed=1)
    assert built()(student, teacher).total > 0
    with pytest.raises(DistillError, match="without targets"):
        built(cases.spec_of("foreground", [], "l2", ONE))(student, teacher)


def test_outputs_that_do_not_fit_are_refused_by_name():
    student, teacher = cases.outputs(), cases.outputs(seed=1)
    distiller = built()
    with pytest.raises(DistillError, match="2 images of the student and 3 of the teacher"):
        distiller(student, cases.outputs(num_images=3))
    with pytest.raises(DistillError, match="student level 'p3' has 9 channels; this distiller was built for 6"):
        distiller(cases.outputs(channels=9), teacher)
    with pytest.raises(DistillError, match="the teacher's outputs have the levels p3, not 'p4'"):
        distiller(student, cases.outputs(levels={"p3": cases.LEVELS["p3"]}))


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_tap_that_is_not_finite_is_named(side):
    def spoil(map_BCHW):
        if map_BCHW.shape[-1] == 8:
            map_BCHW[0, 0, 0, :3] = float("nan")
            map_BCHW[1, 2, 1, 1] = float("inf")
        return map_BCHW

    good = cases.outputs()
    pair = {"student": good, "teacher": good} | {side: cases.like(good, spoil)}
    with pytest.raises(NonFiniteError, match=f"{side} fpn p4 holds 3 NaN and 1 infinite"):
        built()(pair["student"], pair["teacher"])


def test_a_term_that_overflows_is_named():
    student = cases.outputs()
    huge = cases.like(student, lambda map_BCHW: map_BCHW * 1e25)
    with pytest.raises(NonFiniteError, match=r"term feature_map\.l2 is inf.*greatest magnitude .*e\+25"):
        built()(huge, student)


def test_a_spoiled_level_that_no_term_looks_at_is_found_as_well():
    student = cases.outputs()
    teacher = DetectorOutputs({"p4": student.pyramid["p4"].detach()}, {"p4": 16})
    distiller = built(student=student, teacher=teacher)
    spoiled = cases.like(student, lambda x: x * float("nan") if x.shape[-1] == 16 else x)
    with pytest.raises(NonFiniteError, match="student fpn p3"):
        distiller(spoiled, teacher)


def test_an_operator_of_another_package_is_loaded_by_its_row():
    row = Operator("half_l2", "distance", "tests.support.distill_cases:HalfL2", formula="", meaning="", paper="")
    student, teacher = cases.outputs(), cases.outputs(seed=1)
    with REGISTRY.registered(row):
        half = built(cases.spec_of("feature_map", [], "half_l2", ONE))(student, teacher).total
    torch.testing.assert_close(half, built()(student, teacher).total / 2)
    gone = replace(row, implementation="tests.support.distill_cases:Gone")
    lacking = "'half_l2': its class tests.support.distill_cases:Gone cannot be loaded"
    with REGISTRY.registered(gone), pytest.raises(DistillError, match=lacking):
        built(cases.spec_of("feature_map", [], "half_l2", ONE))


# -------------------------------------------------------------------------------------- checkpoints


def test_state_dict_restores_adapters_factors_and_step():
    student, teacher = cases.outputs(3, with_loss=True), cases.outputs(5, seed=1)
    spec = cases.spec_of("feature_map", [], "l2", Weight("relative", 10.0))
    distiller = built(spec, student, teacher)
    nn.init.normal_(distiller.adapters[0].weight)
    distiller(student, teacher)
    file = io.BytesIO()
    torch.save(distiller.state_dict(), file)
    file.seek(0)
    other = built(spec, student, teacher)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.step == 1
    outputs = cases.outputs(3, seed=5)
    assert other.eval()(outputs, teacher).total == distiller.eval()(outputs, teacher).total


@pytest.mark.parametrize(
    ("preset", "lacking"),
    [
        ("ld", r"needs the student's edge_logits"),
        ("crosskd", r"needs the student's head_maps"),
        ("dkd", r"needs the student's class_logits"),
        ("bckd", r"needs the student's boxes"),
    ],
)
def test_a_preset_that_a_pair_cannot_supply_says_what_is_lacking(preset, lacking):
    pair = (cases.bare(cases.outputs(seed=seed)) for seed in (0, 1))
    with pytest.raises(DistillError, match=lacking):
        build_distiller(load_preset(preset), *pair, num_classes=3)


@pytest.mark.parametrize(
    ("side", "tap"), [("student", "class_logits"), ("teacher", "class_logits"), ("teacher", "boxes")]
)
def test_taps_of_predictions_that_are_not_finite_are_named(side, tap):
    pair = {"student": cases.outputs(), "teacher": cases.outputs(seed=1)}
    distiller = build_distiller(load_preset("bckd"), *pair.values(), num_classes=3)
    broken = getattr(pair[side], tap).detach().clone()
    broken[0, 3, 1] = torch.nan
    pair[side] = replace(pair[side], **{tap: broken})
    with pytest.raises(NonFiniteError, match=rf"{side} {tap} holds 1 NaN among {broken.numel()} values"):
        distiller(*pair.values(), cases.TARGETS)
