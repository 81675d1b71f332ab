"""What a pair can be trained with is known from its configuration, before any detector is built."""

from __future__ import annotations

import pytest

from autokd.config import load_config
from autokd.detectors import check_trainable, first_trials, pair_of, unfit_baselines
from autokd.errors import ConfigError
from autokd.presets import load_preset

PAIR = "data: {format: shapes}\nteacher: {architecture: TEACHER, train: {}}\nstudent: {architecture: fcos}\n"


def config_of(teacher: str, rest: str):
    return load_config(PAIR.replace("TEACHER", teacher) + rest)


def test_a_baseline_without_its_taps_is_refused_with_what_it_lacks_and_what_to_write():
    """No head of torchvision predicts distributions of edges, which LD compares."""
    config = config_of("fcos", "full: {baselines: [none, ld, pkd]}\n")
    with pytest.raises(ConfigError) as error:
        check_trainable(config)
    message = str(error.value)
    assert (
        "ld: source 'localization_distribution' needs the student's edge_logits, the teacher's edge_logits" in message
    )
    assert "full: {baselines: [none, pkd]}" in message
    listed = message.split("Presets that fit: ")[1].rstrip(".").split(", ")
    assert "pkd" in listed
    assert "ld" not in listed


def test_a_baseline_that_compares_rows_of_other_anchors_is_refused():
    """FCOS has one candidate a cell, RetinaNet nine."""
    unfit = unfit_baselines(config_of("retinanet", "full: {baselines: [none, kd, fitnet]}\n"))
    assert "kd: source 'positive_logits' compares class_logits, but prediction layouts do not match" in unfit
    assert "fitnet:" not in unfit


def test_baselines_that_fit_and_the_default_ones_pass():
    for teacher in ("fcos", "retinanet", "faster_rcnn"):
        check_trainable(config_of(teacher, ""))
    check_trainable(config_of("fcos", "full: {baselines: [none, kd]}\n"))


def test_a_given_distiller_is_refused_as_a_baseline_would_be():
    with pytest.raises(
        ConfigError, match=r"cannot be trained with ld:\n  ld: source 'localization_distribution' needs"
    ):
        check_trainable(config_of("fcos", ""), load_preset("ld"))


def test_every_listed_preset_fits_and_no_other():
    pair = pair_of(config_of("faster_rcnn", ""))
    fit = pair.supplied_presets()
    assert {"fitnet", "pkd", "cwd", "fgd"} <= set(fit)
    assert not {"kd", "ld", "crosskd"} & set(fit), "a two-stage teacher gives no dense predictions"


def test_enqueued_distillers_that_cannot_be_tried_are_named_each_with_its_reason():
    space = "space: {terms: 1, sources: [feature_map], transforms: {normalize: [none, standardize]}, distances: [l2]}\n"
    config = config_of("fcos", space + "search: {enqueue: [ld, fitnet, cwd]}\n")
    pair = pair_of(config)
    first = first_trials(config, pair, pair.part_of(config.space)[0])
    assert list(first.decisions) == ["fitnet"]
    unsupplied, outside = first.notes
    assert "ld is not tried first: source 'localization_distribution' needs the student's edge_logits" in unsupplied
    assert "cwd is not tried first, it lies outside the space" in outside


def test_a_student_that_may_be_promoted_counts_for_the_search_and_not_for_baselines():
    config = config_of("fcos", "search: {promote_after: 5}\n")
    assert len(pair_of(config).teachers) == 2
    assert len(pair_of(config, searching=False).teachers) == 1
