"""The vocabulary's order and the presets' digests, which recorded tables and databases depend on."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata

import pytest

from autokd.errors import SpecError
from autokd.presets import families_of, load_preset, preset_names
from autokd.spec import (
    DISTANCES,
    REGISTRY,
    SOURCES,
    TRANSFORMS,
    DistillerSpec,
    Operator,
    Step,
    TermSpec,
    Weight,
    operator_of,
)
from autokd.spec.registry import OperatorRegistry

SOURCE_NAMES = [
    "feature_map",
    "foreground",
    "background",
    "foreground_background",
    "instance",
    "foreground_map",
    "background_map",
    "semantic_guided",
    "reliable_foreground",
    "prototypes",
    "reliable_logits",
    "class_logits",
    "positive_logits",
    "localization",
    "localization_distribution",
    "crossed_logits",
    "crossed_boxes",
    "contrastive",
    "teacher_confidence",
    "object_similarity",
    "matched_logits",
    "matched_boxes",
    "matched_edges",
    "shared_logits",
    "shared_boxes",
    "foreground_to_background",
    "balanced_regions",
]
TRANSFORM_NAMES = [
    "spatial_attention",
    "channel_attention",
    "max_pool",
    "local_patches",
    "cell_patches",
    "sample_attention",
    "teacher_attention",
    "shared_attention",
    "random_mask",
    "channel_mean",
    "cell_mean",
    "spatial_softmax",
    "masked_generation",
    "global_context",
    "gram_channels",
    "gram_samples",
    "gram_cells",
    "non_local",
    "pair_distances",
    "triplet_angles",
    "within_class",
    "between_class",
    "affinity",
    "standardize",
    "l2_channels",
    "l2_cells",
    "l2_samples",
    "min_max",
    "standardize_classes",
    "power",
    "root",
    "log",
    "sigmoid",
    "affine",
    "softmax_cells",
    "softmax_channels",
    "haar_band",
    "student_projection",
    "adapted_attention",
    "adapted_channel_mean",
    "adapted_cell_mean",
    "memory_recall",
    "spatial_match",
    "superpixels",
]
DISTANCE_NAMES = [
    "l2_vectors",
    "binary_cross_entropy",
    "binary_kl",
    "decoupled_kl",
    "iou",
    "giou",
    "info_nce",
    "smooth_contrastive",
    "l1",
    "l2",
    "smooth_l1",
    "cosine",
    "pearson",
    "pearson_channels",
    "cross_correlation",
    "kl",
    "kl_reverse",
    "js",
    "cauchy_schwarz",
    "l1_sum",
    "l2_sum",
    "l2_norm",
    "smooth_l1_sum",
    "box_l1",
]

DIGESTS = {
    "at": "29ccc583a31167fc",
    "bckd": "e534fc9137ab27d6",
    "crosskd": "a4b7026961508567",
    "cwd": "b89ecef0fb7f1bdb",
    "d_fine_localization": "bea09597e2005ec4",
    "detkds": "b7ab0e790e70535e",
    "dist": "71ced6e17f823cf8",
    "dkd": "f7ce9ce49c0eb61a",
    "fbkd": "0409634c248f41ef",
    "feature_kd": "a89cb3fc9a4fb91d",
    "fgd": "12250cb03e78c997",
    "fitnet": "e3aa712e2fc37999",
    "g_detkd": "6920f21f5e3dcc2b",
    "g_detkd_contrastive": "13e526345179447b",
    "g_detkd_sgfi": "9a782ab9a2837c46",
    "global_knowledge": "fad872f888091ae7",
    "global_knowledge_labels": "7088567e5e93edc6",
    "gram": "d2f58d599d244b7a",
    "kd": "9c3264603b880dcb",
    "kd_detr": "621360397a04f8c7",
    "ld": "429180ade06a590f",
    "lightly": "1ae3177497ba37c2",
    "logit_standardization": "9133b8e5e125b507",
    "mgd": "a82d43e97938e95b",
    "mlkd": "373d5470538ed317",
    "pkd": "71b4e4d07c6eff4c",
    "rkd": "5b4c4c8a7369093d",
    "score_weighted": "0a84d4cae4169fab",
    "sp": "841a09b4c1611a2c",
}
"""Of each preset as it is if nothing is known of the pair: for one-stage detectors, if it has families."""
OF_FAMILIES = {
    "crosskd": {"anchor_based": "a4b7026961508567", "anchor_free": "06bf9923d1f1a8ee"},
    "detkds": {
        "anchor_based": "b7ab0e790e70535e",
        "anchor_free": "720338e4adb3a0c8",
        "two_stage": "59b3a43a6a0587bb",
    },
    "fbkd": {"one_stage": "0409634c248f41ef", "two_stage": "9612d0686c2b73e8"},
    "fgd": {
        "anchor_based": "12250cb03e78c997",
        "anchor_free": "56c7678a9dfc8a75",
        "two_stage": "323dce532a211ada",
    },
    "global_knowledge": {"one_stage": "fad872f888091ae7", "two_stage": "43185be121716473"},
    "global_knowledge_labels": {"one_stage": "7088567e5e93edc6", "two_stage": "a6bdef18fa1244fb"},
    "mgd": {"one_stage": "a82d43e97938e95b", "two_stage": "34f774c38a37c18e"},
    "pkd": {"one_stage": "71b4e4d07c6eff4c", "two_stage": "041cac354dcaba13"},
}


def test_operators_keep_their_order_within_a_kind():
    # A space that lists `all` offers its options in this order, so a recorded search depends on it.
    assert list(SOURCES) == SOURCE_NAMES
    assert list(TRANSFORMS) == TRANSFORM_NAMES
    assert list(DISTANCES) == DISTANCE_NAMES


def test_digests_of_the_presets_stay_as_they_were_recorded():
    assert {name: load_preset(name).digest for name in preset_names()} == DIGESTS

    with_families = [name for name in preset_names() if len(families_of(name)) > 1]
    found = {name: {family: load_preset(name, family).digest for family in families_of(name)} for name in with_families}
    assert found == OF_FAMILIES


@pytest.mark.parametrize(
    "step",
    [
        Step.of("channel_attention", temperature=0.5, exponent=1),
        Step.of("max_pool", window=2, zero_edge=0),
    ],
    ids=str,
)
def test_late_parameters_at_their_defaults_leave_recorded_digests_as_they_were(step):
    late = step.params[0 if step.name == "channel_attention" else 1]
    written = step.checked("transform")
    assert late[0] not in dict(written.params)
    assert dict(written.params).keys() == dict(step.params).keys() - {late[0]}
    changed = Step.of(step.name, **(dict(step.params) | {late[0]: 0.5 if late[1] == 1 else 1})).checked("transform")
    assert late[0] in dict(changed.params)


@pytest.mark.parametrize(
    ("source", "distance", "digest"),
    [
        ("reliable_foreground", "l2", "e2fc6ef0871a46e7"),
        ("background", "kl", "5771b42b22a0b8f1"),
        ("prototypes", "l2", "a6ce8f33bbd01ce1"),
        ("reliable_logits", "kl", "15f801deac595bc6"),
        ("foreground", "l2_vectors", "22574b368693267e"),
    ],
)
def test_digests_of_forms_stay_when_their_operators_get_a_parameter(source, distance, digest):
    transforms = [Step.of("softmax_channels")] if distance == "kl" else []
    weight = Weight("relative", 30.0)
    plain = DistillerSpec((TermSpec(Step.of(source), tuple(transforms), Step.of(distance), weight),))
    assert plain.digest == digest
    added = 0
    for kind, name in (("source", source), ("distance", distance)):
        late = {p.name: p.default for p in operator_of(kind, name).parameters if p.omitted_at_default}
        written = replace(plain.terms[0], **{kind: Step.of(name, **late)})
        assert DistillerSpec((written,)).digest == digest
        for parameter in late:
            other = replace(plain.terms[0], **{kind: Step.of(name, **{parameter: 1})})
            assert DistillerSpec((other,)).digest != digest
        added += len(late)
    assert added


MINE = Operator("mine", "distance", "my_package:Mine", formula="", meaning="", paper="")


class EntryPoint:
    """An entry point as ``importlib.metadata`` gives it."""

    name = "mine"

    def __init__(self, *rows: Operator) -> None:
        self._rows = rows

    def load(self) -> tuple[Operator, ...]:
        return self._rows


def registry_with(monkeypatch, *rows: Operator) -> OperatorRegistry:
    """A registry of one own row, in a place where a package offers ``rows``."""
    monkeypatch.setattr(metadata, "entry_points", lambda group: [EntryPoint(*rows)])
    return OperatorRegistry([DISTANCES["l2"]])


def test_rows_of_installed_packages_are_there_at_the_first_read(monkeypatch):
    assert list(registry_with(monkeypatch, MINE).table("distance")) == ["l2", "mine"]
    assert len(registry_with(monkeypatch, MINE).table("distance")) == 2
    assert registry_with(monkeypatch, MINE).find("distance", "mine") is MINE


def test_a_row_of_a_package_may_not_take_a_name_that_exists(monkeypatch):
    with pytest.raises(SpecError, match="the entry point 'mine' offers a distance 'l2', which exists already"):
        registry_with(monkeypatch, DISTANCES["l2"]).rows("distance")


def test_rows_are_registered_for_a_while():
    with REGISTRY.registered(MINE):
        assert operator_of("distance", "mine") is MINE
    with pytest.raises(SpecError, match="distance 'mine' is not one of"):
        operator_of("distance", "mine")
