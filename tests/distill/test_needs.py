"""What the rows say of the least classes, objects and images is true: computed, step by step and for whole terms.

A term below its needs has no gradient whatever the student is; a step at its needs has one.

Legend: S samples, C channels, H x W cells, K classes, B images.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from autokd.distill import build_distiller
from autokd.distill.geometry.regions import Instances
from autokd.errors import DistillError, SpecError
from autokd.presets import load_preset
from autokd.spec import DISTANCES, SOURCES, TRANSFORMS, Counts, DistillerSpec, Step, TermSpec, Weight, unmet_needs
from autokd.spec.needs import needs_of, why_unmet
from autokd.spec.operator import Operator
from autokd.spec.signature import Axes, FlowState
from autokd.testing.operators import samples

STEPS = [row for table in (TRANSFORMS, DISTANCES) for row in table.values() if not (row.is_random or row.learns)]
ROUNDING = 1e-3
"""Gradients of random numbers are near 1; those that the guards of a division leave are below 1e-4."""


def steepness(row: Operator, student: Tensor, layout: str, labels: Tensor | None = None) -> float:
    """Greatest |gradient| of a random function of the step's result with respect to the student's numbers."""
    teacher = torch.randn(student.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pair = samples.piece(student, teacher, layout=layout)
    if labels is not None:
        present_S = torch.ones(len(labels), dtype=torch.bool)
        boxes_S4 = torch.zeros(len(labels), 4, dtype=torch.float64)
        pair = replace(pair, instances=Instances(boxes_S4, labels, torch.zeros_like(labels), present_S))
    operator = samples.operator(row.kind, row.name, channels=student.shape[1]).double()
    given = operator(pair, samples.NO_INPUTS)
    if row.kind == "transform":
        weights = torch.randn(given.student_SCHW.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        if given.weights_SHW is not None:
            weights = weights * given.weights_SHW[:, None]
        given = (weights * given.student_SCHW).sum()
    if not given.requires_grad:
        return 0.0
    (found,) = torch.autograd.grad(given, student, allow_unused=True)
    return 0.0 if found is None else float(found.abs().max())


def random_numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("row", [row for row in STEPS if "logits" in row.takes], ids=lambda row: row.name)
def test_a_step_over_classes_depends_on_the_student_from_the_number_of_classes_on_that_its_row_states(row):
    for num_classes in (1, 2, 3, 4):
        found = steepness(row, random_numbers(3, num_classes, 1, 20), "logits")
        assert (found > ROUNDING) == (num_classes >= row.min_channels), (num_classes, found)


@pytest.mark.parametrize("side", [1, 2])
@pytest.mark.parametrize("row", [row for row in STEPS if "regions" in row.takes], ids=lambda row: row.name)
def test_a_step_over_regions_depends_on_the_student_from_the_number_of_regions_on_that_its_row_states(row, side):
    state = FlowState("regions", side=side, axes=Axes(samples="regions"))
    if row.compares_cells and side == 1:
        return
    for num_regions in (1, 2, 3, 4):
        labels = torch.zeros(num_regions, dtype=torch.int64)
        if row.name == "between_class":
            labels = torch.arange(num_regions) % samples.NUM_CLASSES
        found = steepness(row, random_numbers(num_regions, 4, side, side), "regions", labels)
        is_met = not why_unmet(state, row, Counts(regions=num_regions))
        assert (found > ROUNDING) == is_met, (num_regions, found)


def gradient_of(spec: DistillerSpec, num_images: int, num_boxes: int) -> float | None:
    """Greatest |gradient| of a term over its value; None if the distiller is refused when it is built."""
    student, teacher = (samples.outputs(4, num_images, seed, dtype=torch.float64) for seed in (0, 1))
    rng = np.random.default_rng(num_boxes)
    corners = rng.uniform(0, 60, (num_boxes, 2))
    rows = np.concatenate([corners, corners + rng.uniform(20, 36, (num_boxes, 2))], 1)
    shares = np.array_split(rows, num_images)
    try:
        distiller = build_distiller(spec, student, teacher, samples.NUM_CLASSES).double()
    except DistillError:
        return None
    total = distiller(student, teacher, samples.boxes(*(share.tolist() for share in shares))).total
    gradients = torch.autograd.grad(total, list(student.pyramid.values()), allow_unused=True)
    return max(float(found.abs().max()) for found in gradients if found is not None) / max(float(total.detach()), 1e-3)


def term(source: Step, transforms: tuple[str, ...], distance: str) -> TermSpec:
    return TermSpec(source, tuple(map(Step.of, transforms)), Step.of(distance), Weight("absolute", 1.0))


RELATIONS = ("pair_distances", "triplet_angles", "gram_samples")
ROWS = ("l2_cells", "softmax_cells", "min_max", "spatial_softmax", "standardize", "l2_samples")
FORMS = [
    (steps, distance)
    for steps in [*((relation,) for relation in RELATIONS), *itertools.product(RELATIONS, ROWS), ("l2_samples",)]
    for distance in ("l1", "kl", "pearson", "cross_correlation")
]


def well_typed(*found: TermSpec) -> list[TermSpec]:
    """Return the canonical terms among those that the signatures allow."""
    kept = []
    for one in found:
        try:
            kept.append(one.canonical())
        except SpecError:
            continue
    return kept


@pytest.mark.parametrize("num_regions", [1, 2, 3, 4, 5])
def test_a_term_of_relations_that_is_refused_has_no_gradient_and_one_that_is_offered_has_one(num_regions):
    terms = well_typed(*(term(Step.of("instance", size=2), steps, distance) for steps, distance in FORMS))
    assert len(terms) > 15
    for one in terms:
        found = gradient_of(DistillerSpec((one,)), 1, num_regions)
        unmet = unmet_needs(one, Counts(regions=num_regions, images=1))
        assert found is not None
        assert (found > ROUNDING) == (not unmet), (one, found, unmet)


@pytest.mark.parametrize("num_images", [1, 2, 3])
def test_a_term_over_images_has_a_gradient_from_the_batch_on_that_it_needs(num_images):
    steps_of_maps = [*((relation,) for relation in ("gram_samples", "l2_samples")),
                     # Without the softmaxes: inner products of whole maps are so large that these saturate.
                     *(("gram_samples", row) for row in ROWS if "softmax" not in row), ("channel_mean", "l2_samples"),
                     ("gram_channels", "l2_cells"), ("local_patches", "l2_samples")]  # fmt: skip
    terms = well_typed(*(term(Step.of("feature_map"), s, d) for s in steps_of_maps for d in ("l1", "kl", "pearson")))
    assert len(terms) > 12
    for one in terms:
        found = gradient_of(DistillerSpec((one,)), num_images, 4)
        unmet = unmet_needs(one, Counts(images=num_images))
        assert found is not None
        assert (found > ROUNDING) == (not unmet), (one, found, unmet)


PRESET_NEEDS = {
    # preset: (least classes, least objects of a batch, least images of a batch), by the published formulas
    "kd": (2, 0, 0),  # a softmax over the classes
    "dkd": (2, 0, 0),  # the target against the others
    "dist": (3, 0, 0),  # two probabilities that sum to 1 always correlate by 1 or -1
    "global_knowledge_labels": (2, 0, 0),
    "rkd": (0, 3, 0),  # the one distance of two objects is its own mean
    "mlkd": (0, 3, 0),
    "sp": (0, 0, 2),  # a row of one number has length 1
    "detkds": (0, 0, 2),
    "fitnet": (0, 0, 0),
    "pkd": (0, 0, 0),
    "cwd": (0, 0, 0),
    "bckd": (0, 0, 0),  # a sigmoid asks a question of each class by itself
    "ld": (0, 0, 0),  # a softmax over bins
    "crosskd": (0, 0, 0),
}


@pytest.mark.parametrize("name", PRESET_NEEDS)
def test_presets_need_what_their_formulas_compare(name):
    least = dict(zip(("classes", "regions", "images"), PRESET_NEEDS[name], strict=True))
    for countable, need in least.items():
        for found in (1, 2, 3):
            unmet = [why for one in load_preset(name).canonical().terms
                     for why in unmet_needs(one, Counts(**{countable: found}))]  # fmt: skip
            assert bool(unmet) == (found < need), (countable, found, unmet)


def test_what_is_not_known_refuses_nothing():
    for name in PRESET_NEEDS:
        assert not any(unmet_needs(one, Counts()) for one in load_preset(name).canonical().terms)


def test_reasons_say_what_is_compared_what_is_needed_and_what_there_is():
    [kd] = load_preset("kd").canonical().terms
    assert unmet_needs(kd, Counts(classes=1)) == (
        "transform 'softmax_channels' over classes needs 2 of them, and the data set has 1: with fewer it is constant",
    )
    rkd = load_preset("rkd").canonical().terms[0]
    assert unmet_needs(rkd, Counts(regions=2)) == (
        "transform 'pair_distances' over objects needs 3 of them in a batch, and no batch has more than 2: with fewer "
        "it is constant",
    )
    [sp] = load_preset("sp").canonical().terms
    assert unmet_needs(sp, Counts(images=1)) == (
        "transform 'l2_cells' over images needs 2 of them in a batch, and a batch has 1: with fewer it is constant",
    )


@pytest.mark.parametrize(("name", "num_classes"), [("kd", 1), ("dkd", 1), ("dist", 1), ("dist", 2)])
def test_a_distiller_that_compares_too_few_classes_is_refused_when_it_is_built(name, num_classes):
    student, teacher = samples.outputs(seed=0), samples.outputs(seed=1)
    with pytest.raises(
        DistillError, match=f"over classes needs . of them, and the data set has {num_classes}"
    ) as error:
        build_distiller(load_preset(name), student, teacher, num_classes)
    assert "term positive_logits." in str(error.value)
    assert "behind a sigmoid" in str(error.value)
    build_distiller(load_preset("bckd"), student, teacher, num_classes)


def test_a_source_of_proposals_is_not_counted_by_objects():
    """The student's proposals are regions too, however few objects the data show."""
    one = term(Step.of("semantic_guided"), ("pair_distances",), "l2").canonical()
    assert unmet_needs(one, Counts(regions=1)) == ()


def test_every_row_that_states_a_need_is_covered_by_the_checks_above():
    stated = {row.name for table in (SOURCES, TRANSFORMS, DISTANCES) for row in table.values()
              if row.min_classes or row.min_channels or row.min_samples or row.min_positions}  # fmt: skip
    checked = {row.name for row in STEPS if {"logits", "regions"} & set(row.takes)}
    assert stated <= checked
    assert needs_of(FlowState("regions", axes=Axes(samples="regions")), TRANSFORMS["between_class"]) == {
        "classes": 2, "regions": 2,
    }  # fmt: skip
