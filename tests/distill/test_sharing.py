"""Terms on the same taps compute what they share once a step: regions, masks, attention, and any common beginning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

import pytest

from autokd.distill import build_distiller
from autokd.spec import TRANSFORMS, DistillerSpec, Step, TermSpec, Weight
from tests.support import distill_cases as cases

LEVELS = len(cases.LEVELS)


def spec(*terms: tuple[str, ...]) -> DistillerSpec:
    """Each term as source, transforms and distance, with weight 1."""
    return DistillerSpec(
        tuple(
            TermSpec(Step.of(source), tuple(map(Step.of, transforms)), Step.of(distance), Weight("absolute", 1.0))
            for source, *transforms, distance in terms
        )
    )


def computed_in_a_step(wanted: DistillerSpec) -> Counter[str]:
    """How often each shared value is computed in one step of the distiller, its building left out."""
    student, teacher = cases.outputs(), cases.outputs(seed=1)
    distiller = build_distiller(wanted, student, teacher, cases.NUM_CLASSES)
    computed: Counter[str] = Counter()
    distiller.observer = lambda key: computed.update([name_of(key)])
    distiller(student, teacher, cases.TARGETS).total.backward()
    return computed


def name_of(key: Hashable) -> str:
    """The first word of a key; of a chain of operators, the names of their classes."""
    assert isinstance(key, tuple | str)
    kind, *parts = (key,) if isinstance(key, str) else key
    return " ".join(type(part).__name__ for part in parts) if kind == "operators" else str(kind)


@pytest.mark.parametrize(
    ("name", "terms", "once"),
    [
        ("Instance", [("instance", "l1"), ("instance", "l2")], 1),
        ("Instance", [("instance", "l1"), ("instance", "pair_distances", "l2")], 1),
        ("covered", [("foreground", "l1"), ("foreground", "l2")], LEVELS),
        ("covered", [("foreground", "l1"), ("background", "l1")], LEVELS),
        ("covered", [("foreground", "spatial_attention", "l1"), ("background", "l2")], LEVELS),
        ("FeatureMap SpatialAttention", [("feature_map", "spatial_attention", d) for d in ("l1", "l2")], 1),
        ("Foreground TeacherAttention", [("foreground", "teacher_attention", d) for d in ("l1_sum", "l2_sum")], 1),
        ("FeatureMap SharedAttention", [("feature_map", "shared_attention", d) for d in ("l2", "l2_norm")], 1),
        (
            "teacher's magnitude",
            [("feature_map", "teacher_attention", "l2"), ("foreground", "channel_mean", "l2")],
            LEVELS,
        ),
        ("squared gap", [("reliable_foreground", "l2_vectors"), ("background", "l2_vectors")], LEVELS),
        ("maps", [("feature_map", "l1"), ("foreground", "l1"), ("instance", "l1")], LEVELS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_several_terms_need_is_computed_once_a_step(name, terms, once):
    alone = computed_in_a_step(spec(terms[0]))
    together = computed_in_a_step(spec(*terms))
    assert alone[name] == together[name] == once


def test_terms_of_different_parameters_share_no_attention():
    def attending(temperature: float) -> TermSpec:
        step = Step.of("spatial_attention", temperature=temperature)
        return TermSpec(Step.of("feature_map"), (step,), Step.of("l2"), Weight("absolute", 1.0))

    two = DistillerSpec((attending(0.5), attending(1.0)))
    assert computed_in_a_step(two)["FeatureMap SpatialAttention"] == 2


def test_terms_that_draw_at_random_draw_each_for_itself():
    two = spec(*(("feature_map", "masked_generation", distance) for distance in ("l1", "l2")))
    assert computed_in_a_step(two)["FeatureMap MaskedGeneration"] == 2


def test_pairs_of_other_maps_share_nothing_made_of_maps():
    pools = [("feature_map", "max_pool", "channel_mean", "l2"), ("feature_map", "channel_mean", "l2")]
    assert computed_in_a_step(spec(*pools))["teacher's magnitude"] == 2 * LEVELS


def pairs_that_begin_alike() -> list[tuple[tuple[str, ...], tuple[str, str]]]:
    """Source with no transform or one, and two distances that fit it: every source and every transform occurs."""
    distances: dict[tuple[str, ...], list[str]] = {}
    for source, transforms, distance in cases.well_typed_forms(1):
        distances.setdefault((source, *transforms), []).append(distance)
    found: dict[str, tuple[tuple[str, ...], tuple[str, str]]] = {}
    for beginning, fitting in distances.items():
        if len(fitting) > 1 and beginning[-1] not in found:
            found[beginning[-1]] = beginning, (fitting[0], fitting[1])
    return list(found.values())


@pytest.mark.parametrize(("beginning", "distances"), pairs_that_begin_alike(), ids=str)
def test_terms_that_begin_alike_run_their_operators_once(beginning, distances):
    student, teacher = cases.outputs(), cases.outputs(seed=1)
    distiller = build_distiller(spec(*((*beginning, d) for d in distances)), student, teacher, cases.NUM_CLASSES)
    terms = [term for _, term in distiller.named_terms()]
    sources = {term.source for term in terms}
    pieces: list[int] = []
    runs: list[int] = []
    for source in sources:
        source.register_forward_hook(lambda module, given, made: pieces.append(len(made)))
    for transform in {transform for term in terms for transform in term.transforms}:
        transform.register_forward_hook(lambda *call: runs.append(1))
    distiller(student, teacher, cases.TARGETS).total.backward()
    assert len(pieces) == len(sources) == 1
    if len(beginning) > 1:
        draws = 2 if TRANSFORMS[beginning[-1]].is_random else 1
        assert len(runs) == draws * pieces[0]
