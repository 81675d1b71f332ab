"""Specs: canonical form, digest, YAML, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autokd.errors import ConfigError, SpecError
from autokd.spec import DistillerSpec, Step, TermSpec, Weight, formula, formula_lines


def term(source="feature_map", transforms=(), distance="l2", weight=("relative", 40.0)) -> TermSpec:
    steps = tuple(step if isinstance(step, Step) else Step(step) for step in transforms)
    return TermSpec(Step(source), steps, Step(distance), Weight(*weight))


def spec_text(body: str) -> str:
    return f"terms:\n- source: feature_map\n  {body}\n  weight: {{relative: 40}}\n"


def test_identity_steps_and_written_defaults_do_not_change_the_digest():
    plain = DistillerSpec((term(transforms=["softmax_cells"], distance="kl"),))
    padded = DistillerSpec((term(transforms=["none", Step.of("softmax_cells", temperature=1)], distance="kl"),))
    assert plain.digest == padded.digest
    assert plain.canonical() == padded.canonical()


def test_order_of_terms_and_labels_do_not_change_the_digest():
    first, second = term(), term(distance="l1")
    assert DistillerSpec((first, second)).digest == DistillerSpec((second, first), name="x", paper="y").digest


def test_equal_forms_merge_and_their_weights_add():
    merged = DistillerSpec((term(weight=("relative", 10.0)), term(weight=("relative", 30.0)))).canonical()
    assert merged.terms == DistillerSpec((term(weight=("relative", 40.0)),)).canonical().terms


def test_relative_and_absolute_weights_of_one_form_stay_apart():
    both = DistillerSpec((term(), term(weight=("absolute", 40.0)))).canonical()
    assert len(both.terms) == 2


def test_digest_is_stable_between_versions():
    # Computed once with hashlib over the JSON written by hand below; a change would orphan every database.
    import hashlib

    text = (
        '[{"distance":"l2","source":"feature_map","transforms":[{"max_pool":{"window":2}}],"weight":{"relative":40.0}}]'
    )
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert DistillerSpec((term(transforms=["max_pool"]),)).digest == expected


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("distance: cosin", "Did you mean 'cosine'?"),
        ("distance: kl", "takes cell_distribution or channel_distribution, but gets map"),
        ("transforms: [softmax_cells, max_pool]\n  distance: l1", "takes map or regions, but gets cell_distribution"),
        ("transforms: [l2_channels]\n  distance: cosine", "ignores the scale of a cell"),
        ("transforms: [standardize]\n  distance: pearson", "ignores the scale and shift of a channel"),
        ("transforms: [local_patches]\n  distance: l2", "patches matter only where cells are compared"),
        ("transforms: [standardize, standardize]\n  distance: l2", "terms[0]"),
        ("transforms: [{softmax_cells: {temprature: 3}}]\n  distance: kl", "Did you mean 'temperature'?"),
        ("transforms: [{softmax_cells: {temperature: 0}}]\n  distance: kl", "not a number in [0.01, 100.0]"),
        ("transforms: [{max_pool: {window: 1}}]\n  distance: l2", "not a number in [2, 8]"),
        ("transforms: [{max_pool: {window: 2.5}}]\n  distance: l2", "must be a whole number"),
        ("transforms: max_pool\n  distance: l2", "write a list of steps"),
        ("distance: l2\n  tranforms: []", "Did you mean 'transforms'?"),
    ],
)
def test_what_cannot_be_is_refused_with_line_and_remedy(body, found):
    with pytest.raises(SpecError) as error:
        DistillerSpec.from_yaml(spec_text(body))
    assert found in str(error.value)
    assert "<text>:" in str(error.value)


@pytest.mark.parametrize("weight", ["{relative: 0}", "{relative: -1}", "{relative: .nan}", "{relatve: 3}", "3", "{}"])
def test_a_weight_is_one_positive_number_of_a_known_kind(weight):
    with pytest.raises(SpecError, match="weight"):
        DistillerSpec.from_yaml(f"terms:\n- {{source: feature_map, distance: l2, weight: {weight}}}\n")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("terms: []\n", "one or more terms"),
        ("schema: 9\nterms: []\n", "reads schema 2"),
        ("terms:\n- !!python/object/apply:os.system ['true']\n", "data only"),
        ("terms: [\n", "not valid YAML"),
        ("name: a\nname: b\n", "appears twice"),
        ("- 1\n- 2\n", "mapping"),
    ],
)
def test_a_document_that_is_no_distiller_is_refused(text, found):
    with pytest.raises(ConfigError, match=found):
        DistillerSpec.from_yaml(text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        DistillerSpec.from_yaml(tmp_path / "absent.yaml")


def test_a_spec_survives_yaml_on_disk(tmp_path):
    spec = DistillerSpec((term("instance", ["spatial_attention"], "l1"), term(weight=("absolute", 3.0))), "n", "p")
    path = tmp_path / "kd.yaml"
    path.write_text(spec.to_yaml())
    again = DistillerSpec.from_yaml(path)
    assert again == spec
    assert (again.name, again.paper) == ("n", "p")


def test_formula_names_every_operator_and_its_paper():
    spec = DistillerSpec((term("foreground", ["standardize"], "l2"),)).canonical()
    assert formula(spec) == "40 x l2(standardize(F|fg))"
    text = "\n".join(formula_lines(spec))
    assert "2207.02039" in text
    assert "(x - mean_bs x) / std_bs x" in text


def test_with_gradient_ratio_makes_every_weight_relative_and_shares_it():
    spec = DistillerSpec((term(weight=("absolute", 3.0)), term(distance="l1"))).with_gradient_ratio(7)
    assert {t.weight for t in spec.terms} == {Weight("relative", 3.5)}


weights = st.floats(1e-3, 1e4, allow_nan=False)


@given(weights, weights)
def test_canonicalizing_twice_changes_nothing(first, second):
    spec = DistillerSpec((term(weight=("relative", first)), term(weight=("relative", second)), term(distance="l1")))
    once = spec.canonical()
    assert once.canonical() == once
    assert once.canonical().digest == spec.digest


def test_a_recorded_distiller_of_the_schema_before_is_refused_with_the_remedy():
    recorded = "schema: 1\nname: cwd\nterms:\n- source: whole\n  distance: l2\n  weight: {relative: 40}\n"
    with pytest.raises(SpecError, match=r"<text>:1: schema: found 1; .* reads schema 2") as error:
        DistillerSpec.from_yaml(recorded)
    assert "'Names before schema 2' of docs/glossary.md" in str(error.value)
    glossary = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8")
    names = dict(
        re.findall(r"^\| `(\w+)` \| `(\w+)` \|$", glossary.split("## Names before schema 2")[1], flags=re.MULTILINE)
    )
    for old, new in (names | {"schema: 1": "schema: 2"}).items():
        recorded = recorded.replace(old, new)
    assert DistillerSpec.from_yaml(recorded).terms[0].source.name == "feature_map"
