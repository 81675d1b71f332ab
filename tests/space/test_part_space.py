"""Sums of parts: every sample is found again, the count is brute force, and published sums lie in the default space."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

import numpy as np
import pytest

from autokd.config import load_space
from autokd.documents import Document
from autokd.errors import SpaceError, SpecError
from autokd.presets import load_preset, preset_names
from autokd.space import (
    FREE,
    PartSpace,
    Summand,
    count_distillers,
    decisions_of,
    default_parts,
    nearest_summand,
    read_space,
    spec_of,
    summands_of,
    validate,
)
from autokd.spec import DistillerSpec

SMALL = {
    "parts": {
        "number": {"min": 1, "max": 2},
        "presets": ["fitnet", {"cwd": 40}, "global_knowledge", "g_detkd_sgfi"],
        "strengths": [0.1, 1, 10],
        "free": {
            "sources": ["feature_map", "foreground"],
            "transforms": {"normalize": ["none", "standardize"]},
            "distances": ["l1", "l2"],
        },
    }
}
BCCD = Path(__file__).parents[2] / "experiments" / "bccd"


@pytest.fixture(scope="module")
def small() -> PartSpace:
    return read_space(Document(SMALL))


class Replay:
    """Answers a walk from recorded decisions, and notes the options of every name."""

    def __init__(self, decisions):
        self.decisions = dict(decisions)
        self.options = {}

    def categorical(self, name, options):
        self.options[name] = options
        return self.decisions.pop(name)

    def number(self, name, low, high, *, log):
        return self.decisions.pop(name)


@pytest.mark.parametrize(("which", "count"), [("small", 40), ("default", 12)])
def test_every_sample_is_canonical_and_its_decisions_lead_back_to_it(small, which, count):
    space = small if which == "small" else default_parts()
    rng, known = np.random.default_rng(0), {}
    for _ in range(count):
        spec = space.sample(rng)
        validate(space, spec)
        assert spec.canonical() == spec
        decisions = decisions_of(space, spec)
        replay = Replay(decisions)
        assert space.walk(replay) == spec == spec_of(space, decisions)
        assert not replay.decisions, "a decision was recorded that the walk does not ask for"
        for name, options in replay.options.items():
            assert known.setdefault(name, options) == options, "a decision of one name has always the same options"


def test_the_walk_asks_for_family_part_strength_and_whether_to_add_one(small):
    summands = [Summand("g_detkd_sgfi", 10.0), Summand("cwd@published", 0.1, "linear_decay")]
    assert decisions_of(small, small.sum_of(summands)) == {
        "p1.family": "channels",
        "p1.part.channels": "cwd@published",
        "p1.strength": "0.1",
        "p1.schedule": "linear_decay",
        "p2.more": "add",
        "p2.family(maps|semantic_guided|prototypes|free)": "semantic_guided",
        "p2.part.semantic_guided": "g_detkd_sgfi",
        "p2.strength": "10",
        "p2.schedule": "constant",
    }


def test_count_is_that_of_all_walks(small):
    """Brute force over the tree: every answer of every decision, each sum once however its parts are ordered."""
    without_free = read_space(Document({"parts": SMALL["parts"] | {"free": "none"}}))

    def sums(space):
        found, open_walks = set(), [()]
        while open_walks:
            answers = open_walks.pop()
            walk = _Guided(answers)
            try:
                found.add(frozenset(space.walk_parts(walk)))
            except _Ask as ask:
                open_walks += [(*answers, option) for option in ask.options]
        return found

    assert without_free.count() == len(sums(without_free)) == count_distillers(without_free)
    one = read_space(Document({"parts": SMALL["parts"] | {"number": 1}}))
    assert one.count() == len(sums(one))


class _Ask(Exception):
    def __init__(self, options):
        self.options = options


class _Guided:
    def __init__(self, answers):
        self._left = list(answers)

    def categorical(self, name, options):
        if not self._left:
            raise _Ask(options)
        return self._left.pop(0)


def test_the_default_space_holds_every_preset_at_its_weights_and_the_sum_made_by_hand():
    space = default_parts()
    for name in preset_names():
        found = summands_of(space, load_preset(name))
        assert {each.part.removesuffix("@published") for each in found} <= set(preset_names())
        assert all(each.strength == 1 and each.part.endswith("@published") for each in found)
    assert len(summands_of(space, load_preset("g_detkd"))) == 2
    combined = DistillerSpec.from_yaml(BCCD / "combined.yaml")
    assert [(each.part, each.strength, each.schedule) for each in summands_of(space, combined)] == [
        ("fitnet", 10.0, "linear_decay"),
        ("g_detkd_sgfi", 10.0, "constant"),
        ("crosskd", 1.0, "constant"),
    ]


def test_a_strength_multiplies_and_a_schedule_is_offered_to_constant_weights_alone(small):
    spec = small.sum_of([Summand("cwd", 10.0, "linear_decay")])
    assert [(term.weight.value, term.weight.schedule) for term in spec.terms] == [(400.0, "linear_decay")]
    assert small.schedules_of(small.part("global_knowledge")) == ("constant",), "its weights decay as published"
    assert small.schedules_of(small.part("fitnet")) == ("constant", "linear_decay")


def test_weights_are_those_of_the_detector_family():
    space = default_parts()
    for family, weight in (("anchor_free", 0.0016), ("two_stage", 0.00005)):
        part = space.for_detectors(family).part("fgd@published")
        assert max(term.weight.value for term in part.terms) == weight


def test_a_preset_is_enqueued_at_the_nearest_strength(small):
    assert nearest_summand(small, "cwd", 300.0) == Summand("cwd", 10.0)
    with pytest.raises(SpaceError, match="pkd is no part of this space"):
        nearest_summand(small, "pkd", 40.0)


def test_what_is_no_sum_says_so(small):
    with pytest.raises(SpaceError, match="is no sum of 1 to 2 parts of this space"):
        validate(small, load_preset("kd"))
    with pytest.raises(SpaceError, match="is no sum"):
        validate(small, small.sum_of([Summand("cwd", 7.0)]))


def test_a_resolved_document_reads_as_the_same_space(small):
    for space in (small, default_parts()):
        assert read_space(Document(dict(space.document))) == space
    assert load_space("name: x\n") == default_parts()
    assert not isinstance(load_space("name: x\nspace: {terms: {min: 1, max: 2}}\n"), PartSpace)


def test_free_terms_are_a_family_of_their_own(small):
    [free] = [each for each in summands_of(small, small.sum_of(_free_terms(small))) if each.part == FREE]
    assert free.strength == 10.0
    assert free.term.weight.value == 100


def _free_terms(space):
    rng = np.random.default_rng(0)
    for _ in itertools.count():
        found = [each for each in space.walk_parts(_Random(rng)) if each.part == FREE]
        if found:
            return [Summand(FREE, 10.0, "constant", found[0].term, found[0].path)]
    raise AssertionError


class _Random:
    def __init__(self, rng):
        self._rng = rng

    def categorical(self, name, options):
        return options[int(self._rng.integers(len(options)))]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("space: {parts: {presets: [fitnett]}}", SpecError, r"space\.parts\.presets\[0\].*Did you mean 'fitnet'"),
        ("space: {parts: {presets: [fitnet, fitnet]}}", SpaceError, "'fitnet' appears twice"),
        ("space: {parts: {number: 9}}", SpaceError, "1 <= min <= max <= 8"),
        ("space: {parts: {strength: [1]}}", SpaceError, "Did you mean 'strengths'"),
        ("space: {parts: {}, sources: all}", SpaceError, "Move it into 'parts"),
        ("space: {parts: {free: {terms: 2}}}", SpaceError, "a free part is one term"),
        ("space: {parts: {free: {gradient_ratio: [1, 2]}}}", SpaceError, "one gradient ratio"),
        ("space: {parts: {presets: [], free: none}}", SpaceError, "found no preset"),
    ],
)
def test_errors_name_the_place_and_the_remedy(text, error, message):
    with pytest.raises(error, match=message):
        load_space(textwrap.dedent(f"name: x\n{text}\n"))
