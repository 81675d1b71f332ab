"""Levels of a term and schedules with a number: text, canonical form, digest, formula, refusals."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autokd.errors import SpecError
from autokd.presets import load_preset, preset_names
from autokd.spec import DistillerSpec, Step, TermSpec, Weight, formula

TERM = "terms:\n- source: {source}\n  distance: {distance}\n  weight: {weight}\n  levels: {levels}\n"


def spec_of(source="feature_map", distance="l2", weight="{relative: 40}", levels="all"):
    text = TERM.replace("{source}", source).replace("{distance}", distance)
    return DistillerSpec.from_yaml(text.replace("{weight}", weight).replace("{levels}", levels))


names = st.lists(st.sampled_from(["p2", "p3", "p4", "p10", "C5"]), min_size=1, max_size=4, unique=True).map(tuple)
levels = st.one_of(st.sampled_from([("all",), ("coarsest",), ("finest",)]), names)
parts = st.floats(0.001, 0.999)
weights = st.one_of(
    st.builds(Weight, st.sampled_from(["absolute", "relative"]), st.floats(1e-6, 1e6),
              st.sampled_from(["constant", "linear_decay", "warm_up", "cosine_decay"])),
    st.builds(lambda value, part: Weight("relative", value, "off_after", "gap", part), st.floats(1e-3, 1e3), parts),
)  # fmt: skip
terms = st.builds(
    lambda source, weight, chosen: TermSpec(Step.of(source), (), Step.of("l2"), weight, chosen),
    st.sampled_from(["feature_map", "foreground"]), weights, levels,
)  # fmt: skip


@given(st.lists(terms, min_size=1, max_size=4))
def test_specs_with_levels_and_schedules_round_trip_and_canonicalize_once(found):
    spec = DistillerSpec(tuple(found))
    exact = spec.canonical()
    assert exact.canonical() == exact
    assert DistillerSpec.from_yaml(exact.to_yaml()).terms == exact.terms
    assert DistillerSpec.from_data(spec.to_data()).digest == spec.digest == exact.digest
    assert DistillerSpec(tuple(reversed(found))).digest == spec.digest
    assert formula(exact)


@given(names)
def test_the_order_of_names_is_no_part_of_a_distiller(chosen):
    one, other = (DistillerSpec((TermSpec(Step.of("feature_map"), (), Step.of("l2"), Weight("relative", 1.0), order),))
                  for order in (chosen, tuple(reversed(chosen))))  # fmt: skip
    assert one.digest == other.digest


def test_all_levels_are_left_out_of_the_text_and_of_the_digest():
    bare = DistillerSpec.from_yaml(
        "terms:\n- source: feature_map\n  transforms: []\n  distance: l2\n  weight: {absolute: 1}\n"
    )
    assert spec_of(weight="{absolute: 1}") == bare
    assert bare.digest == load_preset("fitnet").digest
    assert "levels" not in bare.to_yaml()
    assert spec_of(levels="[all]").digest == spec_of().digest
    assert [name for name in preset_names() if "levels" in load_preset(name).to_yaml()] == ["feature_kd"]


def test_terms_on_other_levels_are_other_terms():
    digests = {spec_of(levels=found).digest for found in ("all", "coarsest", "finest", "p3", "[p3, p4]", "[p4]")}
    assert len(digests) == 6
    assert spec_of(levels="p4").digest == spec_of(levels="[p4]").digest
    merged = DistillerSpec((*spec_of(levels="p3").terms, *spec_of(levels="p3").terms, *spec_of(levels="p4").terms))
    assert [term.weight.value for term in merged.canonical().terms] == [40, 80]


def test_off_after_is_written_with_its_number():
    spec = spec_of(weight="{absolute: 1, schedule: {off_after: 0.93}}")
    assert spec.terms[0].weight == Weight("absolute", 1, "off_after", off_after=0.93)
    assert spec.to_data()["terms"][0]["weight"] == {"absolute": 1, "schedule": {"off_after": 0.93}}
    assert spec.digest != spec_of(weight="{absolute: 1, schedule: {off_after: 0.9}}").digest
    assert spec.digest == spec_of(weight="{absolute: 1, schedule: {off_after: 0.9300000001}}").digest


def test_formulas_show_levels_and_schedules():
    spec = spec_of(weight="{relative: 4, schedule: {off_after: 0.93}}", levels="[p4, p3]")
    assert formula(spec.canonical()) == "4 x [progress < 0.93] l2(F[p3, p4])"
    spec = spec_of(weight="{absolute: 2, schedule: cosine_decay}", levels="coarsest")
    assert formula(spec) == "2 * (1 + cos(pi progress)) / 2 l2(F[coarsest])"


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        (dict(levels="[]"), "5: terms[0].levels", "found []; write one of all, coarsest, finest, or names of"),
        (dict(levels="[p3, p3]"), "5: terms[0].levels", "each once"),
        (dict(levels="[coarsest, p3]"), "5: terms[0].levels", "write one of all, coarsest, finest"),
        (dict(levels="3"), "5: terms[0].levels", "found [3]"),
        (dict(levels="{p3: 1}"), "5: terms[0].levels", "as in [p3, p4]"),
        (
            dict(source="class_logits", levels="coarsest"),
            "2: terms[0]",
            "levels: coarsest, but source 'class_logits' gives a single feature pair, not one a level. Leave 'levels' ",
        ),
        (
            dict(weight="{relative: 4, schedule: off_after}"),
            "4: terms[0].weight",
            "off_after is 1.0, which is no part of the training between 0 and 1. Write schedule: {off_after: 0.93}",
        ),
        (dict(weight="{relative: 4, schedule: {off_after: 1.5}}"), "4: terms[0].weight", "off_after is 1.5"),
        (dict(weight="{relative: 4, schedule: {off_after: true}}"), "4: terms[0].weight", "off_after is True"),
        (
            dict(weight="{relative: 4, schedule: {stop_after: 0.9}}"),
            "4: terms[0].weight.schedule",
            "write a schedule's name, or {off_after: part}",
        ),
        (dict(weight="{relative: 4, off_after: 0.9}"), "4: terms[0].weight.off_after", "'off_after' is not one of"),
        (dict(weight="{relative: 4, schedule: cosine}"), "4: terms[0].weight", "Did you mean 'cosine_decay'?"),
    ],
)  # fmt: skip
def test_a_wrong_level_or_schedule_is_refused_with_its_line(change, place, words):
    with pytest.raises(SpecError, match=re.escape(words)) as error:
        spec_of(**change)
    assert f"<text>:{place}: " in str(error.value)


def test_a_number_without_its_schedule_is_refused():
    with pytest.raises(SpecError, match=r"the schedule is constant\. Set the schedule to off_after"):
        Weight("relative", 1.0, off_after=0.5)
