"""From a spec to a distiller for one pair of detectors."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from autokd.detector_outputs import DetectorOutputs
from autokd.distill.distiller import Distiller, Term
from autokd.distill.geometry.levels import make_adapters, own_random_numbers, pair_levels
from autokd.distill.operators import BuildContext, Distance, Source, Transform, make_operator
from autokd.distill.probe import refuse_constant_terms
from autokd.distill.term_inputs import device_of
from autokd.distill.weighting.balance import SumOverProcesses
from autokd.errors import DistillError, name_list
from autokd.spec import DistillerSpec, Operator, Step, TermSpec, operator_of
from autokd.spec.operator import Kind

RECALIBRATE_EVERY = 20
"""Steps between two measurements of relative weights, after the first few; None: these stay."""


def build_distiller(
    spec: DistillerSpec,
    student: DetectorOutputs,
    teacher: DetectorOutputs,
    num_classes: int,
    recalibrate_every: int | None = RECALIBRATE_EVERY,
    sum_over_processes: SumOverProcesses | None = None,
) -> Distiller:
    """Build the distiller of ``spec`` for a pair of detectors, on the student's device.

    Learned parts start equal for equal specs and pairs, whatever was drawn before.

    Args:
        spec: the distiller; its canonical form is built.
        student, teacher: any outputs of the two; only their levels, strides and shapes matter.
        num_classes: classes of the data set.
        recalibrate_every: steps between two measurements of relative weights; None: the first ones stay.
        sum_over_processes: adds up a tensor over processes that train one student, so that relative weights are
            measured on the whole batch; None if there is one process.

    Returns:
        A module that is called with both detectors' outputs and the targets of a batch.

    Raises:
        SpecError: if the spec is ill-typed.
        DistillError: if the pair lacks a tap that a term needs, shares no stride, or makes a term constant.
    """
    spec = spec.canonical()
    _check_taps(spec, student, teacher)
    looks_at_levels = any(_is_by_level(term) for term in spec.terms)
    pairs = pair_levels(student, teacher, must_share=looks_at_levels)
    factory = _OperatorFactory(BuildContext(pairs, num_classes, student, teacher))
    terms = {name: factory.term(term, i) for i, (name, term) in enumerate(zip(term_names(spec), spec.terms))}
    distiller = Distiller(
        spec, terms, pairs, make_adapters(pairs if looks_at_levels else ()), recalibrate_every, sum_over_processes
    )
    distiller.to(device_of(student))
    refuse_constant_terms(distiller, student, teacher, num_classes)
    return distiller


def term_names(spec: DistillerSpec) -> tuple[str, ...]:
    """Return a short name for each term ("feature_map.standardize.l2"); equal names are numbered from #2."""
    names: list[str] = []
    for term in spec.terms:
        name = ".".join(step.name for step in (term.source, *term.transforms, term.distance))
        occurrence = 1 + sum(other.split("#")[0] == name for other in names)
        names.append(name if occurrence == 1 else f"{name}#{occurrence}")
    return tuple(names)


class _OperatorFactory:
    """Makes operators; terms that begin alike get the same modules, so that their common beginning runs once."""

    def __init__(self, context: BuildContext) -> None:
        self._context = context
        self._made: dict[tuple[Any, ...], nn.Module] = {}

    def term(self, term: TermSpec, index: int) -> Term:
        beginning: tuple[Any, ...] = (term.source,)
        source = cast(Source, self._operator("source", term.source, beginning))
        transforms = []
        for step in term.transforms:
            if operator_of("transform", step.name).is_random:
                beginning = (*beginning, index)  # each term has random numbers of its own
            beginning = (*beginning, step)
            transforms.append(cast(Transform, self._operator("transform", step, beginning)))
        distance = cast(Distance, self._operator("distance", term.distance, (*beginning, index, term.distance)))
        zero_at_equality = all(row.zero_at_equality for row in _rows(term))
        return Term(
            source, transforms, distance, term.weight, needed_taps(term), self._num_pieces(term), zero_at_equality
        )

    def _num_pieces(self, term: TermSpec) -> int:
        return len(self._context.pairs) if _is_by_level(term) else 1

    def _operator(self, kind: Kind, step: Step, key: tuple[Any, ...]) -> nn.Module:
        if key not in self._made:
            # Seeded by what the operator is, not by when it is made: a term starts equal beside any other terms.
            with own_random_numbers(f"{kind} {step}"):
                self._made[key] = make_operator(kind, step, self._context)
        return self._made[key]


def _is_by_level(term: TermSpec) -> bool:
    return operator_of("source", term.source.name).by_level


def needed_taps(term: TermSpec) -> frozenset[str]:
    """Return the taps that a term's operators read on both sides."""
    return frozenset(tap for row in _rows(term) for tap in row.needs_taps)


def _rows(term: TermSpec) -> list[Operator]:
    rows = [operator_of("source", term.source.name), operator_of("distance", term.distance.name)]
    return rows + [operator_of("transform", step.name) for step in term.transforms]


def _check_taps(spec: DistillerSpec, student: DetectorOutputs, teacher: DetectorOutputs) -> None:
    lacks = [
        f"term {name} needs {missing}"
        for name, term in zip(term_names(spec), spec.terms)
        for missing in dict.fromkeys(tap for row in _rows(term) for tap in row.missing(student.taps(), teacher.taps()))
    ]
    if lacks:
        raise DistillError(
            f"this pair cannot supply the distiller: {'; '.join(lacks)} "
            f"(student has {name_list(student.taps(), empty='no taps')}; teacher has "
            f"{name_list(teacher.taps(), empty='no taps')}). Choose other terms or other detectors."
        )
