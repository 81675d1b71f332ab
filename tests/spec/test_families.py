"""Distillers with families of detectors: which terms a family gets, what is refused, what is said of it."""

from __future__ import annotations

import re

import pytest

from autokd.detectors import family_notes
from autokd.errors import SpecError
from autokd.presets import families_of, load_distiller, load_preset, preset_names
from autokd.spec import DistillerSpec
from autokd.spec.families import ANY_FAMILY, DETECTOR_FAMILIES, chosen_family, serves

TERM = "- {source: feature_map, distance: l2, weight: {absolute: WEIGHT}}"


def text(weights: dict[str, int], more: str = "") -> str:
    families = "".join(
        f"  {family}:\n    release: config {weight}\n    terms:\n    {TERM.replace('WEIGHT', str(weight))}\n"
        for family, weight in weights.items()
    )
    return f"schema: 2\nname: mine\n{more}families:\n{families}"


WRITTEN = {
    "parts": {"anchor_based": 1, "anchor_free": 2, "two_stage": 3},
    "both": {"two_stage": 3, "one_stage": 4},
    "two stages alone": {"two_stage": 3},
    "one part": {"two_stage": 3, "anchor_free": 2},
}


@pytest.mark.parametrize(
    ("written", "family", "weight"),
    [
        ("parts", "anchor_based", 1),
        ("parts", "anchor_free", 2),
        ("parts", "two_stage", 3),
        ("parts", "one_stage", 1),
        ("parts", None, 1),
        ("both", "anchor_based", 4),
        ("both", "anchor_free", 4),
        ("both", "two_stage", 3),
        ("both", None, 4),
        ("two stages alone", "anchor_free", 3),
        ("two stages alone", None, 3),
        ("one part", "anchor_based", 2),
        ("one part", None, 2),
    ],
)
def test_a_family_gets_its_own_terms_or_those_of_the_nearest_one(written, family, weight):
    spec = DistillerSpec.from_yaml(text(WRITTEN[written]), family)
    assert [term.weight.value for term in spec.terms] == [weight]
    assert WRITTEN[written][spec.family] == weight
    assert spec.release == f"config {weight}"
    assert chosen_family(tuple(WRITTEN[written]), family) == spec.family


def test_labels_of_a_family_are_written_and_change_nothing():
    spec = DistillerSpec.from_yaml(text(WRITTEN["parts"]), "two_stage")
    read = DistillerSpec.from_yaml(spec.to_yaml())
    assert (read.family, read.release) == ("two_stage", "config 3")
    plain = DistillerSpec.from_yaml(f"schema: 2\nterms:\n{TERM.replace('WEIGHT', '3')}\n")
    assert (read, read.digest) == (plain, plain.digest)
    assert read.canonical().family == read.with_gradient_ratio(4).family == "two_stage"
    assert "family" not in plain.to_data()


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (text({"one_stage": 1}, "family: any\n"), "family: 'family' and 'families' exclude each other. Drop 'family'."),
        (text({"one_stag": 1}), "families.one_stag: key 'one_stag' is not one of"),
        ("schema: 2\nfamilies: {}\n", "families: found {}; write {FAMILY: {terms: [...]}} with one_stage,"),
        ("schema: 2\nfamilies: {one_stage: 3}\n", "families.one_stage: found 3; a family has release, terms"),
        ("schema: 2\nfamilies: {one_stage: {terms: []}}\n", "families.one_stage.terms: found []"),
        (text({"one_stage": 1, "two_stage": -1}), "families.two_stage.terms[0].weight: weight: -1"),
        (
            f"schema: 2\nfamily: one\nterms:\n{TERM.replace('WEIGHT', '3')}\n",
            "family: family of detectors 'one' is not",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_place_whatever_family_is_asked_for(body, found):
    with pytest.raises(SpecError, match=re.escape(found)):
        DistillerSpec.from_yaml(body)


def test_a_family_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(SpecError, match=r"'two_stages' is not one of .* Did you mean 'two_stage'"):
        load_preset("pkd", "two_stages")


def test_a_file_has_families_as_a_preset_has(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text(WRITTEN["both"]))
    assert families_of(str(path)) == ("two_stage", "one_stage")
    assert load_distiller(str(path), "two_stage").terms[0].weight.value == 3
    assert families_of("cwd") == (ANY_FAMILY,)
    assert families_of("fgd") == ("anchor_based", "anchor_free", "two_stage")


RELEASED = {
    "pkd": {"one_stage": [5], "two_stage": [3]},  # 10 and 6, on half of the mean square
    "mgd": {"one_stage": [2e-5], "two_stage": [5e-7]},
    "fgd": {
        "anchor_based": [1e-3, 5e-4, 5e-4, 5e-6],
        "anchor_free": [1.6e-3, 8e-4, 8e-4, 8e-6],
        "two_stage": [5e-5, 5e-5, 5e-5, 5e-7],
    },
    "fbkd": {"one_stage": [4e-4, 2e-2, 2e-2, 4e-4], "two_stage": [7e-5, 4e-3, 4e-3, 7e-5]},
    "crosskd": {"anchor_based": [1, 1], "anchor_free": [0.4, 0.75]},
    "detkds": {"anchor_based": [6, 2, 1], "anchor_free": [5, 2, 1], "two_stage": [2]},
    "global_knowledge": {"one_stage": [0.5, 2, 5], "two_stage": [0.1, 0.4, 5]},  # half of 1 and 4, and of a fifth
    "global_knowledge_labels": {"one_stage": [0.5, 2, 5, 1], "two_stage": [0.1, 0.4, 5, 1]},
}
"""Weights in the released configs: in yzd-v/FGD alpha, gamma twice, lambda; in lliai/DetKDS gamma_global, gamma_fbg and
half of it; in yzd-v/MGD alpha_mgd; in mmrazor loss_weight; in CrossKD the weights of loss_cls_kd and loss_reg_kd."""
PARAMETERS = {
    ("mgd", "one_stage"): {("masked_generation", "drop"): 0.65},
    ("mgd", "two_stage"): {("masked_generation", "drop"): 0.45},
    ("fgd", "anchor_based"): {("teacher_attention", "temperature"): 0.5, ("spatial_softmax", "temperature"): 0.5},
    ("fgd", "anchor_free"): {("teacher_attention", "temperature"): 0.8, ("spatial_softmax", "temperature"): 0.8},
    ("fgd", "two_stage"): {("teacher_attention", "temperature"): 0.5, ("spatial_softmax", "temperature"): 0.5},
    ("fbkd", "one_stage"): {("adapted_attention", "temperature"): 0.5},
    ("fbkd", "two_stage"): {("adapted_attention", "temperature"): 0.1},
}


@pytest.mark.parametrize(("name", "family"), [(name, family) for name, of in RELEASED.items() for family in of])
def test_presets_have_the_released_weights_of_each_family(name, family):
    spec = load_preset(name, family)
    assert spec.family == family
    assert spec.release
    assert [term.weight.value for term in spec.terms] == RELEASED[name][family]
    assert all(term.weight.kind == "absolute" for term in spec.terms)
    found = {(step.name, key): value for term in spec.terms for step in term.transforms for key, value in step.params}
    for key, value in PARAMETERS.get((name, family), {}).items():
        assert found[key] == value


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("family", [*DETECTOR_FAMILIES, None])
def test_every_preset_has_terms_for_every_family_and_its_first_is_the_default(name, family):
    spec = load_preset(name, family)
    assert spec.family in families_of(name)
    assert load_preset(name).family == families_of(name)[0]
    assert spec.release or len(families_of(name)) == 1, "weights of a family come from a release"


def test_notes_say_whose_weights_a_preset_has_and_where_they_come_from():
    specs = [load_preset(name, "anchor_free") for name in ("fgd", "cwd", "mgd")]
    first, second = family_notes([*specs, specs[0]], "anchor_free")
    assert (
        first == "fgd: as published for anchor_free detectors (yzd-v/FGD, fgd_fcos_r101_distill_fcos_r50_2x_coco.py)."
    )
    assert second.startswith("mgd: as published for one_stage detectors (yzd-v/MGD")
    assert "nothing was published" not in first + second
    (note,) = family_notes([load_preset("crosskd", "two_stage")], "two_stage")
    assert note.endswith("; the student is two_stage, for which nothing was published.")
    (note,) = family_notes([load_preset("pkd")], None)
    assert note.endswith("; the student is of none of its families, for which nothing was published.")


def test_weights_serve_the_families_that_they_were_published_for():
    assert serves("one_stage", "anchor_free")
    assert serves(ANY_FAMILY, None)
    assert serves("", "two_stage")
    assert not serves("one_stage", "two_stage")
    assert not serves("anchor_based", "anchor_free")
