"""Terms on the same taps compute what they share once a step: regions, masks, attention, and any common beginning."""

from __future__ import annotations

import pytest

from autokd.distill import build_distiller
from autokd.distill.geometry import regions as region_module
from autokd.distill.sources import maps as map_sources
from autokd.distill.term_inputs import TermInputs
from autokd.distill.transforms import joint_attention, masks
from autokd.distill.transforms.attention import SpatialAttention
from autokd.spec import TRANSFORMS, DistillerSpec, Step, TermSpec, Weight
from tests.support import distill_cases as cases

LEVELS = len(cases.LEVELS)
SIDES = 2


def spec(*terms: tuple[str, ...]) -> DistillerSpec:
    """Each term as source, transforms and distance, with weight 1."""
    return DistillerSpec(
        tuple(
            TermSpec(Step.of(source), tuple(map(Step.of, transforms)), Step.of(distance), Weight("absolute", 1.0))
            for source, *transforms, distance in terms
        )
    )


def calls_in_a_step(monkeypatch, owner, name: str, wanted: DistillerSpec) -> int:
    """How often ``owner.name`` is called in one step of the distiller, its building left out."""
    student, teacher = cases.outputs(), cases.outputs(seed=1)
    distiller = build_distiller(wanted, student, teacher, cases.NUM_CLASSES)
    calls = []
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **more: calls.append(1) or original(*args, **more))
    distiller(student, teacher, cases.TARGETS).total.backward()
    monkeypatch.setattr(owner, name, original)
    return len(calls)


@pytest.mark.parametrize(
    ("owner", "name", "terms", "once"),
    [
        (map_sources, "roi_align", [("instance", "l1"), ("instance", "l2")], SIDES * LEVELS),
        (map_sources, "roi_align", [("instance", "l1"), ("instance", "pair_distances", "l2")], SIDES * LEVELS),
        (region_module, "covering", [("foreground", "l1"), ("foreground", "l2")], LEVELS),
        (region_module, "covering", [("foreground", "l1"), ("background", "l1")], LEVELS),
        (region_module, "covering", [("foreground", "spatial_attention", "l1"), ("background", "l2")], LEVELS),
        (
            SpatialAttention,
            "change",
            [("whole", "spatial_attention", d) for d in ("l1", "l2")],
            SIDES * LEVELS,
        ),
        (joint_attention, "_weighted", [("foreground", "teacher_attention", d) for d in ("l1_sum", "l2_sum")], LEVELS),
        (joint_attention, "_weighted", [("whole", "shared_attention", d) for d in ("l2", "l2_norm")], LEVELS),
        (TermInputs, "_paired_maps", [("whole", "l1"), ("foreground", "l1"), ("instance", "l1")], LEVELS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_several_terms_need_is_computed_once_a_step(monkeypatch, owner, name, terms, once):
    alone = calls_in_a_step(monkeypatch, owner, name, spec(terms[0]))
    together = calls_in_a_step(monkeypatch, owner, name, spec(*terms))
    assert alone == together == once


def test_terms_of_different_parameters_share_no_attention(monkeypatch):
    def attending(temperature: float) -> TermSpec:
        step = Step.of("spatial_attention", temperature=temperature)
        return TermSpec(Step.of("whole"), (step,), Step.of("l2"), Weight("absolute", 1.0))

    two = DistillerSpec((attending(0.5), attending(1.0)))
    assert calls_in_a_step(monkeypatch, SpatialAttention, "change", two) == 2 * SIDES * LEVELS


def test_terms_that_draw_at_random_draw_each_for_itself(monkeypatch):
    two = spec(*(("whole", "masked_generation", distance) for distance in ("l1", "l2")))
    assert calls_in_a_step(monkeypatch, masks, "draw_kept", two) == 2 * LEVELS


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
