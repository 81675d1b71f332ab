"""The taps of student and teacher that a spec, or a whole run, reads."""

from __future__ import annotations

from collections.abc import Iterable

from autokd.config import ResolvedConfig
from autokd.detectors import detector_family_of
from autokd.jobs import NO_DISTILLATION, RecipeName
from autokd.presets import load_distiller
from autokd.space import AnySpace, PartSpace
from autokd.spec import DistillerSpec, Operator, Step, operator_of
from autokd.spec.operator import Kind
from autokd.spec.vocabulary import IDENTITY


def student_taps(spec: DistillerSpec) -> tuple[str, ...]:
    """Return the taps of the student that the operators of ``spec`` read, or use if they are there; sorted."""
    return _sorted(tap for r in _rows(spec) for tap in (*r.needs_taps, *r.needs_of_student, *r.uses_of_student))


def teacher_taps(spec: DistillerSpec) -> tuple[str, ...]:
    """Return the taps of the teacher that the operators of ``spec`` read; sorted."""
    return _of_teacher(_rows(spec))


def teacher_taps_of_run(config: ResolvedConfig, recipe: RecipeName | None = None) -> tuple[str, ...]:
    """Return the teacher's taps that a distiller of the run may read; sorted.

    These are the distillers of the space, the enqueued presets and the baselines: one cache serves all trials.

    Args:
        config: the run's configuration.
        recipe: name of the recipe whose trainings read the taps: baselines are not trained by the proxy; None: all.
    """
    offered = _offered(config.space)
    baselines = () if recipe == "proxy" else config.full.baselines
    named = {*config.search.named_distillers, *baselines} - {NO_DISTILLATION}
    family = detector_family_of(config.student) if named else None
    return _of_teacher(offered + [row for name in named for row in _rows(load_distiller(name, family))])


def _offered(space: AnySpace) -> list[Operator]:
    """Return the vocabulary's rows of everything that a space offers."""
    if isinstance(space, PartSpace):
        of_parts = [row for part in space.parts for row in _rows(DistillerSpec(part.terms))]
        return of_parts + (_offered(space.free) if space.free is not None else [])
    steps = ((slot.kind, option.step.name) for slot in space.slots for option in slot.options)
    return [operator_of(kind, name) for kind, name in steps if name != IDENTITY]


def _rows(spec: DistillerSpec) -> list[Operator]:
    """Return the vocabulary's rows of all steps of a spec."""
    steps: list[tuple[Kind, Step]] = []
    for term in spec.canonical().terms:
        steps += [("source", term.source), ("distance", term.distance)]
        steps += [("transform", step) for step in term.transforms]
    return [operator_of(kind, step.name) for kind, step in steps]


def _of_teacher(rows: Iterable[Operator]) -> tuple[str, ...]:
    return _sorted(tap for row in rows for tap in (*row.needs_taps, *row.needs_of_teacher))


def _sorted(taps: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(taps)))
