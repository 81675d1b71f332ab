"""The family of a pair chooses the published weights: torchvision's by name, others' by their framework."""

from __future__ import annotations

import pytest

from autokd.api import read_distiller
from autokd.config import load_config
from autokd.detectors import detector_family_of, first_trials, pair_of
from autokd.presets import load_preset
from autokd.spec.families import DETECTOR_FAMILIES
from autokd.study.distillers import baseline_distillers
from autokd.training.teacher.required_taps import teacher_taps_of_run

FAMILIES = {"fcos": "anchor_free", "retinanet": "anchor_based", "faster_rcnn": "two_stage"}


def config_of(student: str, rest: str = "", teacher: str = "fcos"):
    return load_config(
        f"data: {{format: shapes}}\nteacher: {{architecture: {teacher}, train: {{}}}}\n"
        f"student: {{architecture: {student}}}\n{rest}"
    )


@pytest.mark.parametrize("student", FAMILIES)
def test_a_pair_is_of_its_students_family_whatever_the_teacher_is(student):
    for teacher in FAMILIES:
        config = config_of(student, teacher=teacher)
        assert pair_of(config).family == detector_family_of(config.student) == FAMILIES[student]
    assert FAMILIES[student] in DETECTOR_FAMILIES


@pytest.mark.parametrize("student", FAMILIES)
def test_baselines_have_the_weights_of_the_pairs_family(student):
    config = config_of(student, "full: {baselines: [none, fgd, mgd], baseline_gradient_ratio: published}\n")
    none, fgd, mgd = baseline_distillers(config.full, pair_of(config).family)
    assert none.spec is None
    assert fgd.digest == load_preset("fgd", FAMILIES[student]).digest
    assert mgd.spec.to_data()["family"] == ("two_stage" if student == "faster_rcnn" else "one_stage")
    gammas = {"fcos": 8e-4, "retinanet": 5e-4, "faster_rcnn": 5e-5}
    assert fgd.spec.terms[1].weight.value == gammas[student]


def test_families_of_other_weights_have_other_digests():
    recipe = config_of("fcos", "full: {baselines: [pkd], baseline_gradient_ratio: published}\n").full
    assert len({baseline_distillers(recipe, family)[1].digest for family in DETECTOR_FAMILIES}) == 2


@pytest.mark.parametrize("student", ["fcos", "faster_rcnn"])
def test_enqueued_presets_have_the_terms_of_the_pairs_family(student):
    learned = "{learned: [none, {masked_generation: {drop: 0.45}}]}"
    space = f"space: {{terms: 1, sources: [feature_map], transforms: {learned}, distances: [l2_sum]}}\n"
    config = config_of(student, space + "search: {enqueue: [mgd], enqueue_gradient_ratio: 40}\n")
    pair = pair_of(config)
    first = first_trials(config, pair, pair.part_of(config.space)[0])
    assert ("mgd" in first.decisions) == (student == "faster_rcnn"), "one-stage detectors drop 0.65 of the cells"


def test_a_distiller_by_name_has_the_terms_of_the_family():
    for family in DETECTOR_FAMILIES:
        assert read_distiller("fgd", family).family == load_preset("fgd", family).family
    given = load_preset("fgd", "two_stage")
    assert read_distiller(given, "anchor_free") is given


def test_the_teachers_cache_holds_what_the_familys_terms_read():
    config = config_of("fcos", "full: {baselines: [none, crosskd]}\n")
    assert {"head", "class_logits", "boxes"} <= set(teacher_taps_of_run(config))
