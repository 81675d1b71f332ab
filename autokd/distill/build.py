"""From a spec to a distiller for one pair of detectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from torch import nn

from autokd.detector_outputs import DetectorOutputs
from autokd.distill.distiller import Distiller
from autokd.distill.geometry.levels import LevelPair, make_adapters, own_random_numbers, pair_levels
from autokd.distill.operators import BuildContext, Distance, Source, Transform, make_operator
from autokd.distill.probe import refuse_constant_terms
from autokd.distill.term import Term
from autokd.distill.term_inputs import device_of
from autokd.distill.weighting.balance import SumOverProcesses
from autokd.errors import DistillError, name_list
from autokd.spec import Counts, DistillerSpec, Operator, Step, TermSpec, operator_of, unmet_needs
from autokd.spec.operator import Kind
from autokd.spec.terms import ALL_LEVELS, Adapter

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
        DistillError: if the pair lacks a tap that a term needs, shares no stride, or makes a term constant, or if
            there are too few classes for a term.
    """
    spec = spec.canonical()
    _check_taps(spec, student, teacher)
    _check_classes(spec, num_classes)
    by_level = [term for term in spec.terms if _is_by_level(term)]
    pairs = pair_levels(student, teacher, must_share=bool(by_level))
    factory = _OperatorFactory(BuildContext(pairs, num_classes, student, teacher))
    kept = [_kept_levels(name, term, pairs) for name, term in zip(term_names(spec), spec.terms)]
    terms = {name: factory.term(term, i, kept[i]) for i, (name, term) in enumerate(zip(term_names(spec), spec.terms))}
    # Levels that no term reads through an adapter of a kind need no parameters of that kind.
    read: dict[Adapter, set[int]] = {}
    for term, levels in zip(spec.terms, kept):
        if _is_by_level(term):
            read.setdefault(term.adapter, set()).update(levels)
    distiller = Distiller(
        spec,
        terms,
        pairs,
        make_adapters(pairs if "linear" in read else (), read.get("linear")),
        recalibrate_every,
        sum_over_processes,
        make_adapters(pairs, read["mlp"], kind="mlp") if "mlp" in read else None,
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

    def term(self, term: TermSpec, index: int, kept: tuple[int, ...]) -> Term:
        """Return a term; ``kept`` are the indices of the paired levels that it reads."""
        beginning: tuple[Any, ...] = (term.source, term.levels, term.adapter)
        source = cast(Source, self._operator("source", term.source, beginning, term.adapter))
        if term.levels != ALL_LEVELS:
            source.kept = kept
        transforms = []
        for step in term.transforms:
            if operator_of("transform", step.name).is_random:
                beginning = (*beginning, index)  # each term has random numbers of its own
            beginning = (*beginning, step)
            transforms.append(cast(Transform, self._operator("transform", step, beginning)))
        distance = cast(Distance, self._operator("distance", term.distance, (*beginning, index, term.distance)))
        zero_at_equality = all(row.zero_at_equality for row in _rows(term))
        taps, num_pieces = needed_taps(term), len(kept) or 1
        return Term(source, transforms, distance, term.weight, taps, num_pieces, zero_at_equality)

    def _operator(self, kind: Kind, step: Step, key: tuple[Any, ...], adapter: Adapter = "linear") -> nn.Module:
        if key not in self._made:
            # Seeded by what the operator is, not by when it is made: a term starts equal beside any other terms.
            with own_random_numbers(f"{kind} {step}"):
                self._made[key] = make_operator(kind, step, replace(self._context, adapter=adapter))
        return self._made[key]


def _kept_levels(name: str, term: TermSpec, pairs: tuple[LevelPair, ...]) -> tuple[int, ...]:
    """Return the indices of the paired levels that a term reads; none if its source gives a single feature pair.

    Raises:
        DistillError: if the term names a level that the student lacks, or that no level of the teacher fits.
    """
    if not _is_by_level(term):
        return ()
    every = tuple(range(len(pairs)))
    if term.levels == ALL_LEVELS:
        return every
    if term.levels in (("coarsest",), ("finest",)):
        pick = max if term.levels == ("coarsest",) else min
        return (pick(every, key=lambda level: pairs[level].stride),)
    names = [pair.student for pair in pairs]
    if absent := [level for level in term.levels if level not in names]:
        raise DistillError(
            f"term {name}: levels: {', '.join(absent)} is not among the student's levels that have the stride of one "
            f"of the teacher's: {', '.join(names)}. Name some of these, or write coarsest or finest."
        )
    return tuple(level for level in every if names[level] in term.levels)


def _is_by_level(term: TermSpec) -> bool:
    return operator_of("source", term.source.name).by_level


def needed_taps(term: TermSpec) -> frozenset[str]:
    """Return the taps that a term's operators read of either side."""
    return frozenset(
        tap for row in _rows(term) for tap in (*row.needs_taps, *row.needs_of_student, *row.needs_of_teacher)
    )


def _rows(term: TermSpec) -> list[Operator]:
    rows = [operator_of("source", term.source.name), operator_of("distance", term.distance.name)]
    return rows + [operator_of("transform", step.name) for step in term.transforms]


def _check_classes(spec: DistillerSpec, num_classes: int) -> None:
    counts = Counts(classes=num_classes)
    lacks = [
        f"term {name}: {reason}"
        for name, term in zip(term_names(spec), spec.terms)
        for reason in unmet_needs(term, counts)
    ]
    if lacks:
        raise DistillError(
            f"{'; '.join(lacks)}. Choose terms that compare no classes: of feature maps or boxes, or of class logits "
            "behind a sigmoid."
        )


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
