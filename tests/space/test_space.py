"""Properties of the space: every sample is valid, found again, and counted once."""

from __future__ import annotations

import itertools
import math
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autokd.config import load_space
from autokd.errors import ConfigError, SpaceError, SpecError
from autokd.presets import load_preset, preset_names
from autokd.space import (
    count_specs,
    decisions_of,
    enumerate_forms,
    enumerate_specs,
    restrict_to_taps,
    validate,
    with_offered_ratios,
)
from autokd.spec import DISTANCES, SOURCES, TRANSFORMS, DistillerSpec, Step, TermSpec, Weight

SMALL = """
name: small
space:
  terms: {min: 1, max: 2}
  sources: [feature_map, foreground]
  transforms: {attention: [none, spatial_attention], normalize: [none, standardize, softmax_cells]}
  distances: [l2, cosine, kl]
  gradient_ratio: [10, 40]
"""
WIDE = """
name: wide
space:
  terms: {min: 1, max: 3}
  sources: [feature_map, {instance: {size: [2, 4]}}]
  transforms:
    attention: all
    scale: [none, {max_pool: {window: [2, 4]}}, local_patches]
    normalize: [none, l2_channels, l2_cells, {softmax_cells: {temperature: {log_uniform: [0.5, 4]}}}]
  distances: all
  gradient_ratio: {log_uniform: [3, 100]}
"""
SPACES = {"default": "name: x\nspace: {}\n", "small": SMALL, "wide": WIDE}


@pytest.fixture(params=SPACES, scope="module")
def space(request):
    return load_space(SPACES[request.param])


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_every_sample_validates_round_trips_and_is_canonical(space, seed):
    spec = space.sample(np.random.default_rng(seed))
    validate(space, spec)
    assert spec.canonical() == spec
    assert DistillerSpec.from_yaml(spec.to_yaml()).digest == spec.digest
    assert space.min_terms <= len(spec.terms) <= space.max_terms


class Replay:
    """Answers a walk from recorded decisions, and notes the options of every name."""

    def __init__(self, decisions):
        self.decisions = dict(decisions)
        self.options = {}

    def categorical(self, name, options):
        self.options[name] = options
        return self.decisions.pop(name)

    def number(self, name, low, high, *, log):
        self.options[name] = (low, high, log)
        return self.decisions.pop(name)


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_decisions_of_a_sample_lead_back_to_it(space, seed):
    spec = space.sample(np.random.default_rng(seed))
    replay = Replay(decisions_of(space, spec))
    assert space.walk(replay) == spec
    assert not replay.decisions, "a decision was recorded that the walk does not ask for"


def test_a_decision_of_one_name_always_offers_the_same_options(space):
    rng = np.random.default_rng(0)
    known = {}
    for _ in range(300):
        replay = Replay(decisions_of(space, space.sample(rng)))
        space.walk(replay)
        for name, options in replay.options.items():
            assert known.setdefault(name, options) == options


def test_count_equals_brute_force_over_the_vocabulary():
    space = load_space(SMALL)
    forms = set()
    for source, attention, normalize, distance in itertools.product(
        ["feature_map", "foreground"],
        [(), ("spatial_attention",)],
        [(), ("standardize",), ("softmax_cells",)],
        ["l2", "cosine", "kl"],
    ):
        steps = tuple(Step(name) for name in (*attention, *normalize))
        candidate = TermSpec(Step(source), steps, Step(distance), Weight("relative", 1.0))
        try:
            forms.add(candidate.canonical())
        except SpecError:
            continue
    expected = len(forms) * 2 + math.comb(len(forms), 2) * 4
    assert count_specs(space) == expected
    digests = [spec.digest for spec in enumerate_specs(space)]
    assert len(digests) == len(set(digests)) == expected


def test_samples_reach_every_form_of_a_small_space():
    space = load_space(SMALL.replace("max: 2", "max: 1"))
    rng = np.random.default_rng(0)
    expected = {spec.digest for spec in enumerate_specs(space)}
    # 400 draws over some 30 leaves of unequal probability (least about 1/100): a miss has probability < 2%.
    assert {space.sample(rng).digest for _ in range(1500)} == expected


def test_two_equal_terms_are_never_drawn():
    space = load_space(
        "space:\n  terms: 2\n  sources: [feature_map]\n  transforms: {}\n  distances: [l1, l2]\n  gradient_ratio: 10\n"
    )
    rng = np.random.default_rng(0)
    assert {len(space.sample(rng).terms) for _ in range(50)} == {2}
    assert count_specs(space) == 1


def test_all_stands_for_the_whole_table():
    space = load_space("space:\n  sources: all\n  transforms: all\n  distances: all\n")
    offered = {option.step.name for slot in space.slots for option in slot.options}
    searched = {name for name, row in TRANSFORMS.items() if row.group}
    assert offered == {"none", *SOURCES, *searched, *DISTANCES}


WEIGHTS = """
space:
  terms: {min: 1, max: 2}
  sources: [feature_map, semantic_guided]
  transforms: {}
  distances: [l1, l2]
  gradient_ratio: [10, 40]
  schedule: [constant, linear_decay]
  level_weighting: [equal, gap, gradient]
"""


def test_schedules_and_layers_are_decisions_where_they_make_a_difference():
    space = load_space(WEIGHTS)
    # feature_map: 2 distances x (2 gradient ratios x 2 schedules x 3 level weightings); semantic_guided has one piece.
    one, other = 2 * 2 * 3, 2 * 2
    singles = 2 * one + 2 * other
    pairs = one * one + other * other + 4 * one * other
    assert count_specs(space) == singles + pairs
    specs = list(enumerate_specs(space))
    assert len(specs) == len({spec.digest for spec in specs}) == count_specs(space)
    for spec in specs[:: len(specs) // 40]:
        validate(space, spec)
        assert DistillerSpec.from_yaml(spec.to_yaml()) == spec
    decisions = decisions_of(space, specs[5])
    assert {"t1.schedule", "t1.level_weighting"} <= set(decisions)
    warm = DistillerSpec((TermSpec(Step.of("feature_map"), (), Step.of("l1"), Weight("relative", 10, "warm_up")),))
    with pytest.raises(SpaceError, match=r"weight.schedule: 'warm_up' is not offered"):
        validate(space, warm)


def test_adapters_are_a_decision_of_sources_that_compare_maps():
    space = load_space(
        "space:\n  terms: 1\n  sources: [feature_map, semantic_guided]\n  transforms: {}\n  distances: [l1, l2]\n"
        "  gradient_ratio: [10]\n  adapter: [linear, mlp]\n"
    )
    specs = list(enumerate_specs(space))
    assert count_specs(space) == len(set(specs)) == 2 * 2 + 2
    for spec in specs:
        validate(space, spec)
        decisions = decisions_of(space, spec)
        assert decisions.get("t1.adapter", "linear") == spec.terms[0].adapter
    assert {space.sample(np.random.default_rng(seed)).terms[0].adapter for seed in range(20)} == {"linear", "mlp"}
    plain = load_space("space:\n  sources: [feature_map]\n  gradient_ratio: [10]\n")
    mlp = TermSpec(Step.of("feature_map"), (), Step.of("l1"), Weight("relative", 10), adapter="mlp")
    with pytest.raises(SpaceError, match=r"terms\[0\].adapter: 'mlp' is not offered; the space has linear"):
        validate(plain, DistillerSpec((mlp,)))


def test_what_a_pair_cannot_supply_is_dropped_with_a_reason():
    space = load_space(SMALL)
    whole, reasons = restrict_to_taps(space, {"fpn"})
    assert whole == space
    assert reasons == ()
    with pytest.raises(SpaceError, match="needs the student's fpn"):
        restrict_to_taps(space, {"class_logits"})


def test_what_one_of_several_teachers_cannot_supply_is_dropped_and_the_teacher_is_named():
    space = load_space("space:\n  sources: [feature_map, class_logits, crossed_logits]\n")
    everything = {"fpn", "class_logits", "head_maps", "head"}
    part, reasons = restrict_to_taps(space, everything, everything, {"fpn", "class_logits"}, {"fpn", "head"})
    assert [option.label for slot in part.slots if slot.kind == "source" for option in slot.options] == ["feature_map"]
    assert reasons[:2] == (
        "source 'class_logits' needs teacher 3's class_logits, which these detectors lack",
        "source 'crossed_logits' needs teacher 2's head, teacher 3's class_logits, which these detectors lack",
    )
    assert restrict_to_taps(space, everything, everything, everything) == (space, ())


def test_sources_that_weigh_cells_by_scores_need_a_teacher_whose_candidates_lie_on_cells():
    space = load_space("space:\n  sources: [feature_map, teacher_confidence, object_similarity]\n")
    taps = {"fpn"}, {"fpn", "class_logits", "boxes"}
    assert restrict_to_taps(space, *taps) == (space, ())
    part, reasons = restrict_to_taps(space, *taps, unpaired={"cells": "the teacher's are queries"})
    labels = [option.label for slot in part.slots if slot.kind == "source" for option in slot.options]
    assert labels == ["feature_map", "object_similarity"]
    assert reasons == (
        "source 'teacher_confidence' weighs cells by the teacher's predictions, but the teacher's are queries",
    )


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (dict(source=Step("background")), "source 'background' is not offered; the space has feature_map, foreground"),
        (dict(distance=Step("l1")), "distance 'l1' is not offered"),
        (dict(transforms=(Step("max_pool"),)), "transform 'max_pool[window=2]' is not offered"),
        (dict(transforms=(Step("standardize"), Step("spatial_attention"))), "order of the slots"),
        (dict(weight=Weight("relative", 11)), "not one of 10, 40"),
        (dict(weight=Weight("absolute", 10)), "with_gradient_ratio"),
    ],
)
def test_a_spec_outside_the_space_is_refused_with_what_is_offered(change, found):
    parts = dict(source=Step("feature_map"), transforms=(), distance=Step("l2"), weight=Weight("relative", 10)) | change
    with pytest.raises(SpaceError) as error:
        validate(load_space(SMALL), DistillerSpec((TermSpec(**parts),)))
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("space", "line", "found"),
    [
        ("sources: [feature_maps]", 3, "Did you mean 'feature_map'?"),
        ("sources: []", 3, "one or more"),
        ("sources: [none]", 3, "cannot be 'none'"),
        ("source: [whole]", 3, "Did you mean 'sources'?"),
        ("terms: {min: 3, max: 2}", 3, "1 <= min <= max"),
        ("terms: {least: 3}", 3, "write a number"),
        ('terms: {min: "1e3"}', 3, "1 <= min <= max"),
        ("terms: {min: {a: 1}}", 3, "1 <= min <= max"),
        ("gradient_ratio: {log_uniform: [100, 3]}", 3, "empty range"),
        ("gradient_ratio: {log_uniform: [0, 3]}", 3, "above 0"),
        ("gradient_ratio: strong", 3, "a number, a list of numbers"),
        ("gradient_ratio: [3, 3]", 3, "appears twice"),
        ("transforms: [standardize]", 3, "slot name"),
        ("transforms: {distance: [none]}", 3, "cannot be called"),
        ("transforms:\n    normalize: [none, standardize, standardize]", 4, "appears twice"),
        ("transforms:\n    normalize:\n    - none\n    - {softmax_cells: {temperature: [1, 0.001]}}", 6, "0.001"),
        ("distances: [l2, kl]\n  transforms: {normalize: [none, standardize]}", 3, "no term of this space can use"),
        ("transforms: {scale: [none, local_patches]}\n  distances: [l2, cosine]", 3, "no term of this space can use"),
        ("distances: [{l2: {only: maps}}]", 3, "Did you mean 'map'?"),
        ("distances: [{giou: {only: map}}]", 3, "layout 'map' is not one of boxes."),
        ("distances: [{l2: {only: []}}]", 3, "leave 'only' out"),
        ("distances: [l1, {l2: {only: logits}}]", 3, "nothing gives it logits"),
        ("sources: [{feature_map: {only: map}}]", 3, "only"),
    ],
)
def test_a_wrong_space_is_refused_with_its_line(space, line, found):
    with pytest.raises(ConfigError) as error:
        load_space(f"name: bad\nspace:\n  {space}\n")
    assert found in str(error.value)
    assert f"<text>:{line}: space." in str(error.value)


def test_numbers_left_free_are_drawn_from_their_range():
    space = load_space(WIDE)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(300):
        for term in space.sample(rng).terms:
            drawn += [value for step in term.transforms if step.name == "softmax_cells" for _, value in step.params]
    assert len(set(drawn)) > 20
    assert min(drawn) >= 0.5
    assert max(drawn) <= 4


RESTRICTED = """
space:
  terms: {min: 1, max: 3}
  sources: [feature_map, semantic_guided, crossed_logits, crossed_boxes]
  transforms: {normalize: [none, standardize, {sigmoid: {only: logits}}]}
  distances: [{l2: {only: [map, regions]}}, {binary_cross_entropy: {focus: [1, 2]}}, giou]
  gradient_ratio: [10, 40]
"""


def test_a_restricted_step_is_offered_for_what_it_is_restricted_to_alone():
    space = load_space(RESTRICTED)
    forms = {(f.source.name, *(s.name for s in f.transforms), f.distance.name) for f in enumerate_forms(space)}
    assert forms == {
        ("feature_map", "l2"), ("feature_map", "standardize", "l2"), ("semantic_guided", "l2"),
        ("semantic_guided", "standardize", "l2"), ("crossed_logits", "sigmoid", "binary_cross_entropy"),
        ("crossed_boxes", "giou"),
    }  # fmt: skip
    assert len(enumerate_forms(space)) == 7, "two focuses"
    assert count_specs(space) == sum(math.comb(7, n) * 2**n for n in (1, 2, 3))
    rng = np.random.default_rng(0)
    for spec in (space.sample(rng) for _ in range(200)):
        assert decisions_of(space, spec)
        assert all(term.distance.name != "binary_cross_entropy" or term.source.name == "crossed_logits"
                   for term in spec.terms)  # fmt: skip


def test_a_spec_that_meets_a_restriction_is_told_of_it():
    sigmoid = TermSpec(Step.of("feature_map"), (Step.of("sigmoid"),), Step.of("binary_cross_entropy", focus=1),
                       Weight("relative", 10.0))  # fmt: skip
    with pytest.raises(SpaceError, match=r"terms\[0\]: transform 'sigmoid' is offered for logits only, but gets map"):
        validate(load_space(RESTRICTED), DistillerSpec((sigmoid,)))


def test_the_example_of_the_documentation_reads():
    from autokd.space import parse

    example = parse.__doc__.split("\n\n")[1]
    load_space("space:\n" + textwrap.indent(textwrap.dedent(example), "  "))


def test_every_preset_lies_in_the_space_of_the_whole_vocabulary():
    space = load_space(Path(__file__).parents[2] / "search_spaces" / "detectors.yaml")
    for name, family in itertools.product(preset_names(), (None, "anchor_free", "two_stage")):
        spec = with_offered_ratios(space, load_preset(name, family).with_gradient_ratio(40))
        validate(space, spec)
        assert decisions_of(space, spec)["terms"] == str(len(spec.terms))
    offered = {option.step.name for slot in space.slots for option in slot.options}
    assert offered == {"none", *SOURCES, *TRANSFORMS, *DISTANCES}, "an operator is missing from the file"


def test_a_parameter_may_be_offered_at_zero_if_its_operator_allows_it():
    text = "space:\n  terms: 1\n  sources: [{background: {own_level: [0, 1]}}]\n  distances: [l2]\n"
    sources = {form.source for form in enumerate_forms(load_space(text + "  gradient_ratio: 40\n"))}
    assert sources == {Step.of("background"), Step.of("background", own_level=1)}
    with pytest.raises(SpecError, match="own_level = -1 is not a number in"):
        load_space(text.replace("[0, 1]", "[-1, 1]"))
