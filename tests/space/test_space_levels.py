"""Spaces that offer levels, schedules with numbers, or data that cannot teach some of them: counted, found, refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autokd.config import load_space
from autokd.errors import ConfigError, SpaceError
from autokd.space import (
    count_specs,
    decisions_of,
    enumerate_forms,
    enumerate_specs,
    restrict_to_counts,
    validate,
)
from autokd.spec import Counts, DistillerSpec, Step, TermSpec, Weight, unmet_needs

LEVELS = """
space:
  terms: {min: 1, max: 2}
  sources: [feature_map, semantic_guided]
  transforms: {}
  distances: [l1, l2]
  gradient_ratio: [10, 40]
  schedule: [constant, {off_after: [0.8, 0.93]}, cosine_decay]
  level_weighting: [equal, gap]
  levels: [all, coarsest, [p4, p3]]
"""
OF_DATA = """
space:
  terms: {min: 1, max: 2}
  sources: [feature_map, {instance: {size: [1, 2]}}, class_logits, positive_logits]
  transforms:
    scale: [none, local_patches]
    relation: [none, gram_samples, pair_distances, triplet_angles, between_class]
    normalize: [none, standardize, l2_channels, l2_cells, l2_samples, min_max, softmax_channels, sigmoid]
  distances: [l2, cosine, pearson, pearson_channels, cross_correlation, kl, decoupled_kl]
  gradient_ratio: {log_uniform: [3, 100]}
  levels: [coarsest, p3]
"""


def test_levels_and_schedules_are_decisions_counted_once():
    space = load_space(LEVELS)
    # feature_map: 2 distances x (2 ratios x 4 schedules x 2 level weightings x 3 levels); semantic_guided: one piece.
    one, other = 2 * 4 * 2 * 3, 2 * 4
    assert count_specs(space) == 2 * one + 2 * other + one * one + other * other + 4 * one * other
    specs = list(enumerate_specs(space))
    assert len(specs) == len({spec.digest for spec in specs}) == count_specs(space)
    assert len(enumerate_forms(space)) == 2 * 3 + 2
    for spec in specs[:: len(specs) // 60]:
        validate(space, spec)
        assert DistillerSpec.from_yaml(spec.to_yaml()) == spec
    assert space.schedules == ("constant", "off_after[0.8]", "off_after[0.93]", "cosine_decay")


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_samples_are_found_again_with_their_levels(seed):
    space = load_space(LEVELS)
    spec = space.sample(np.random.default_rng(seed))
    decisions = decisions_of(space, spec)
    for i, term in enumerate(spec.terms, start=1):
        assert (f"t{i}.levels" in decisions) == (term.source.name == "feature_map")
        assert decisions[f"t{i}.schedule"] == term.weight.schedule_label
        assert term.levels in space.levels_of(term.source)


def test_a_space_that_offers_no_levels_asks_for_none_and_has_the_document_that_it_had():
    space = load_space("space: {terms: 1, sources: [feature_map], transforms: {}, distances: [l2]}\n")
    assert "levels" not in space.document
    assert not any("levels" in name for name in decisions_of(space, space.sample(np.random.default_rng(0))))
    single = load_space(LEVELS.replace("[all, coarsest, [p4, p3]]", "finest"))
    spec = next(iter(enumerate_specs(single)))
    assert not any("levels" in name for name in decisions_of(single, spec))
    assert {term.levels for spec in enumerate_specs(single) for term in spec.terms} == {("finest",), ("all",)}


def form(levels=("all",), weight=None, source="feature_map"):
    return TermSpec(Step.of(source), (), Step.of("l2"), weight or Weight("relative", 10), levels)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ([form(("finest",))], "terms[0].levels: 'finest' is not offered; for source 'feature_map' the space has all, "
                              "coarsest, p3+p4."),
        ([form(weight=Weight("relative", 10, "off_after", off_after=0.5))],
         "terms[0].weight.schedule: 'off_after[0.5]' is not offered; the space has constant, off_after[0.8]"),
        ([form(), form(("coarsest",))], "terms[1]: has source, transformations and distance of terms[0]."),
    ],
)  # fmt: skip
def test_a_spec_outside_the_space_is_told_why(terms, words):
    with pytest.raises(SpaceError, match=re.escape(words)):
        decisions_of(load_space(LEVELS), DistillerSpec(tuple(terms)))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("levels: []", "<text>:3: space.levels: found []; write one or more of all"),
        ("levels: [all, [all]]", "space.levels[1]: 'all' appears twice. Keep one."),
        ("levels: [[p3, p4], [p4, p3]]", "'p3+p4' appears twice"),
        ("levels: [[coarsest, p3]]", "write one of all, coarsest, finest, or names"),
        ("schedule: [constant, {off_after: 2}]", "space.schedule[1]: weight: schedule: off_after is 2"),
        ("schedule: {off_after: [0.9, 0.9]}", "each once"),
        ("schedule: off_after", "Did you mean"),
        ("schedule: [{stop: 0.9}]", "write a schedule's name, or {off_after: part}"),
        ("transforms: {levels: [none]}", "a slot cannot be called 'levels'"),
        ("schedule: linear", "Did you mean 'linear_decay'?"),
        ("schedule: []", "one or more of constant, linear_decay, warm_up"),
        ("level_weighting: [gap, gap]", "each once"),
        ("adapter: mpl", "Did you mean 'mlp'?"),
    ],
)
def test_wrong_words_of_a_space_are_refused_with_their_line(line, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        load_space(f"space:\n  sources: [feature_map]\n  {line}\n")


def test_all_schedules_are_those_without_a_number():
    space = load_space("space: {sources: [feature_map], schedule: all}\n")
    assert space.schedules == ("constant", "linear_decay", "warm_up", "cosine_decay")


counts = st.builds(Counts, st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(found=counts, seed=st.integers(0, 2**32 - 1))
def test_what_a_restricted_space_draws_can_teach_and_all_else_that_can_is_still_in_it(found, seed):
    whole, rng = load_space(OF_DATA), np.random.default_rng(seed)
    part, reasons = restrict_to_counts(whole, found)
    spec = part.sample(rng)
    assert not any(unmet_needs(term, found) for term in spec.terms)
    assert decisions_of(part, spec)
    other = whole.sample(rng)
    if any(unmet_needs(term, found) for term in other.terms):
        assert reasons
        with pytest.raises(SpaceError):
            validate(part, other)
    else:
        validate(part, other)


def test_a_space_of_which_everything_can_teach_stays_the_same_space():
    whole = load_space(OF_DATA)
    assert restrict_to_counts(whole, Counts(80, 500, 16)) == (whole, ())
    assert restrict_to_counts(whole, Counts()) == (whole, ())


def test_a_refused_step_is_named_when_a_spec_with_it_is_looked_up():
    part, _ = restrict_to_counts(load_space(OF_DATA), Counts(classes=1))
    soft = TermSpec(Step.of("class_logits"), (Step.of("softmax_channels"),), Step.of("kl"), Weight("relative", 10))
    with pytest.raises(SpaceError, match=r"terms\[0\]: transform 'softmax_channels' over classes needs 2 of them"):
        validate(part, DistillerSpec((soft,)))
