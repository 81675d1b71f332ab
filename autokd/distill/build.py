"""From a spec to a distiller for one pair of detectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from torch import nn

from autokd.distill.distiller import Distiller, Term
from autokd.distill.levels import make_adapters, own_random_numbers, pair_levels
from autokd.distill.operators import BuildContext, Distance, Source, Transform, make_operator
from autokd.errors import DistillError
from autokd.outputs import DetectorOutputs
from autokd.spec import DistillerSpec, Operator, Step, TermSpec, operator_of
from autokd.spec.vocabulary import Kind

RECALIBRATE_EVERY = 20
"""Steps between two measurements of relative weights, after the first few."""


def build_distiller(
    spec: DistillerSpec,
    student: DetectorOutputs,
    teacher: DetectorOutputs,
    num_classes: int,
    recalibrate_every: int = RECALIBRATE_EVERY,
) -> Distiller:
    """Build the distiller of ``spec`` for a pair of detectors, on the student's device.

    student, teacher: any outputs of the two; their levels, strides and channels are what matters. Learned parts
    start equal for equal specs and pairs, whatever was drawn before. SpecError if the spec is ill-typed;
    DistillError if the pair lacks a tap that it needs, or shares no stride.
    """
    spec = spec.canonical()
    _check_taps(spec, student, teacher)
    uses_pyramid = any("fpn" in row.needs_taps for term in spec.terms for row in _rows(term))
    pairs = pair_levels(student, teacher) if uses_pyramid else ()
    workshop = _Workshop(BuildContext(pairs, num_classes))
    terms = {name: workshop.term(term, i) for i, (name, term) in enumerate(zip(term_names(spec), spec.terms))}
    distiller = Distiller(spec, terms, pairs, make_adapters(pairs), recalibrate_every)
    taps = [*student.pyramid.values(), *(tap for tap in (student.class_logits, student.boxes) if tap is not None)]
    return distiller.to(taps[0].device) if taps else distiller


def term_names(spec: DistillerSpec) -> tuple[str, ...]:
    """A short name for each term, "whole.standardise.l2"; terms of the same operators are numbered from #2."""
    names: list[str] = []
    for term in spec.terms:
        name = ".".join(step.name for step in (term.source, *term.transforms, term.distance))
        occurrence = 1 + sum(other.split("#")[0] == name for other in names)
        names.append(name if occurrence == 1 else f"{name}#{occurrence}")
    return tuple(names)


class _Workshop:
    """Makes operators; terms that begin alike get the same ones, so that they compute what they share once."""

    def __init__(self, context: BuildContext) -> None:
        self._context = context
        self._made: dict[tuple[Any, ...], nn.Module] = {}

    def term(self, term: TermSpec, index: int) -> Term:
        beginning: tuple[Any, ...] = (term.source,)
        source = cast(Source, self._operator("source", term.source, beginning))
        transforms = []
        for step in term.transforms:
            if operator_of("transform", step.name).is_random:
                beginning = (*beginning, index)  # each term draws for itself
            beginning = (*beginning, step)
            transforms.append(cast(Transform, self._operator("transform", step, beginning)))
        distance = cast(Distance, self._operator("distance", term.distance, (*beginning, index, term.distance)))
        return Term(source, transforms, distance, term.weight)

    def _operator(self, kind: Kind, step: Step, key: tuple[Any, ...]) -> nn.Module:
        if key not in self._made:
            with own_random_numbers(f"{kind} {step}"):
                self._made[key] = make_operator(kind, step, self._context)
        return self._made[key]


def _check_taps(spec: DistillerSpec, student: DetectorOutputs, teacher: DetectorOutputs) -> None:
    lacks = []
    for name, term in zip(term_names(spec), spec.terms):
        for tap in sorted({tap for row in _rows(term) for tap in row.needs_taps}):
            sides = [
                side for side, outputs in (("student", student), ("teacher", teacher)) if tap not in outputs.taps()
            ]
            if sides:
                lacks.append(f"term {name} needs the tap {tap!r}, which {' and '.join(sides)} lack")
    if lacks:
        raise DistillError(
            f"this pair cannot supply the distiller: {'; '.join(lacks)} (student: {_listed(student)}; teacher: "
            f"{_listed(teacher)}). Choose other terms or other detectors."
        )


def _rows(term: TermSpec) -> Iterator[Operator]:
    yield operator_of("source", term.source.name)
    for step in term.transforms:
        yield operator_of("transform", step.name)
    yield operator_of("distance", term.distance.name)


def _listed(outputs: DetectorOutputs) -> str:
    return ", ".join(outputs.taps()) or "no taps"
