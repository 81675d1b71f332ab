"""Distillers that the detectors of a run can be trained with, found from the configuration before anything is built."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from autokd.config import RunConfig
from autokd.config.section import PORTFOLIO
from autokd.detectors.build import build_detector
from autokd.detectors.capabilities import detector_family_of, taps_of, taps_of_teachers
from autokd.detectors.framework import framework_of
from autokd.detectors.prediction_layout import unpaired_taps
from autokd.detectors.resolve import resolve
from autokd.errors import ConfigError, DetectorError, SpaceError
from autokd.jobs import NO_DISTILLATION
from autokd.portfolio import Portfolio, load_portfolio
from autokd.presets import load_distiller, load_preset, preset_names
from autokd.space import (
    AnySpace,
    DataContent,
    PartSpace,
    Space,
    decisions_of,
    decisions_of_sum,
    lacks_of,
    nearest_summand,
    restrict_to_counts,
    restrict_to_taps,
    with_offered_ratios,
)
from autokd.spec import Counts, DistillerSpec
from autokd.spec.families import ANY_FAMILY, DetectorFamily, serves
from autokd.spec.needs import UNKNOWN

SHORT_SEARCH = 8
"""Trials up to which a search tries the portfolio alone."""
OPERATOR_QUEUE = ("fitnet", "pkd", "cwd")
"""Presets that ``portfolio`` stands for in a space of operators, in which sums of parts have no place."""


@dataclass(frozen=True)
class Pair:
    """The taps of a student and of its teachers, their family of detectors, and what their trainings have to compare.

    Args:
        student: names of the student's taps.
        teachers: names of each teacher's taps.
        unpaired: tap -> the reason why the student's and a teacher's cannot be compared row by row.
        family: family of the student, which chooses the weights of presets; None: of none, or unknown.
        counts: classes, objects and images of the trainings; terms that need more cannot teach.
    """

    student: tuple[str, ...]
    teachers: tuple[tuple[str, ...], ...]
    unpaired: Mapping[str, str]
    family: DetectorFamily | None = None
    counts: Counts = UNKNOWN

    def part_of(self, space: AnySpace) -> tuple[AnySpace, tuple[str, ...]]:
        """Return the part of a space that can teach this pair, and a sentence for each option left out.

        Args:
            space: the whole space of the configuration. Published parts get the weights for the student's family.

        Raises:
            SpaceError: if nothing of it can.
        """
        if isinstance(space, PartSpace):
            return self._sums_of(space)
        return self._terms_of(space)

    def _sums_of(self, space: PartSpace) -> tuple[PartSpace, tuple[str, ...]]:
        own = space.for_detectors(self.family)
        lacks = {part: self.lacks(DistillerSpec(part.terms)) for part in own.parts}
        reasons = [f"preset '{part.preset}': {'; '.join(why)}" for part, why in lacks.items() if why]
        free = own.free
        if free is not None:
            try:
                free, more = self._terms_of(free)
                reasons += [f"free terms: {reason}" for reason in more]
            except SpaceError as error:
                free = None
                reasons.append(f"free terms: {error}")
        supplied = tuple(part for part, why in lacks.items() if not why)
        if not supplied and free is None:
            raise SpaceError("This pair supplies no part of the space: " + "; ".join(dict.fromkeys(reasons)) + ".")
        return replace(own, parts=supplied, free=free, document=None), tuple(dict.fromkeys(reasons))

    def _terms_of(self, space: Space) -> tuple[Space, tuple[str, ...]]:
        supplied, reasons = restrict_to_taps(space, self.student, *self.teachers, unpaired=self.unpaired)
        taught, more = restrict_to_counts(supplied, self.counts)
        return taught, reasons + more

    def lacks(self, spec: DistillerSpec) -> tuple[str, ...]:
        """Return a sentence for each step of a distiller that these detectors or their data cannot supply.

        Args:
            spec: the distiller.
        """
        return lacks_of(spec, self.student, self.teachers, self.unpaired, self.counts)

    def supplied_presets(self) -> tuple[str, ...]:
        """Return the names of the presets that these detectors can be trained with."""
        return tuple(name for name in preset_names() if not self.lacks(load_preset(name, self.family)))


def pair_of(config: RunConfig, content: DataContent | None = None, *, searching: bool = True) -> Pair:
    """Return what a configuration's detectors supply; configs of MMDetection are read, and thereby run.

    Args:
        config: the configuration.
        content: content of the training set, as ``autokd.data.content_of`` reads it; None: nothing is refused for a
            lack of classes, objects or images.
        searching: whether distillers are searched: a student that may be promoted then counts among the teachers, and
            a distiller must teach with the batches of the proxy as well as with those of full trainings. Baselines
            need the latter alone.

    Raises:
        DetectorError: if a config cannot be read, or describes no detector.
        ConfigError: if recipes come from a student's config that no recipe can hold.
    """
    teachers = taps_of_teachers(config)
    if not searching:
        teachers = teachers[: len(config.teachers)]
    unpaired = unpaired_taps(config, promoting=searching)
    counts = _counts(config, content, searching)
    return Pair(taps_of(config.student), teachers, unpaired, detector_family_of(config.student), counts)


def _counts(config: RunConfig, content: DataContent | None, searching: bool) -> Counts:
    if content is None:
        return UNKNOWN
    resolved = resolve(config)
    smallest = min(resolved.full.batch_size, resolved.proxy.batch_size) if searching else resolved.full.batch_size
    return content.counts(smallest)


def unfit_baselines(config: RunConfig, content: DataContent | None = None) -> str:
    """Return an error's text on the baselines that this pair cannot be trained with; empty if all of them fit.

    Args:
        config: the configuration, with ``full.baselines``.
        content: content of the training set, as of ``pair_of``.
    """
    pair = pair_of(config, content, searching=False)
    named = [name for name in config.full.baselines if name != NO_DISTILLATION]
    lacks = {name: found for name in named if (found := pair.lacks(load_distiller(name, pair.family)))}
    if not lacks:
        return ""
    kept = ", ".join(name for name in config.full.baselines if name not in lacks)
    return (
        f"full.baselines: this pair cannot be trained with {', '.join(lacks)}:\n{_listed(lacks.items())}"
        f"Leave them out, as in 'full: {{baselines: [{kept or NO_DISTILLATION}]}}'. "
        f"Presets that fit: {', '.join(pair.supplied_presets())}."
    )


def check_trainable(config: RunConfig, spec: DistillerSpec | None = None, content: DataContent | None = None) -> None:
    """Check that the pair can be trained with every baseline, and with ``spec`` if one is given.

    Args:
        config: the configuration, with ``full.baselines``.
        spec: a distiller that will be trained beside them.
        content: content of the training set, as of ``pair_of``.

    Raises:
        ConfigError: naming what the pair or its data lack, and the presets that fit.
    """
    if config.full.pipeline == "student_config":  # what cannot be replayed is refused now
        framework_of(config.student).train_pipeline(config.student, config.full.epochs)
    pair = pair_of(config, content, searching=False)
    if spec is not None and (lacks := pair.lacks(spec)):
        name = spec.name or "the given distiller"
        raise ConfigError(
            f"this pair cannot be trained with {name}:\n{_listed([(name, lacks)])}Give another one. Presets that fit: "
            f"{', '.join(pair.supplied_presets())}."
        )
    if unfit := unfit_baselines(config, content):
        raise ConfigError(unfit)


def try_detectors(config: RunConfig, classes: Sequence[str], image_size_px: tuple[int, int]) -> None:
    """Build the student and every teacher once, with their checkpoints; torch's random state stays as it was.

    Args:
        config: the configuration.
        classes: names of the data set's classes.
        image_size_px: (height, width) of the network's input.

    Raises:
        DetectorError: naming the section, if a config or a checkpoint is missing, broken or of another model, an
            operator is absent, or a checkpoint lacks classes.
    """
    sections = [("student", config.student)]
    for i, teacher in enumerate(config.teachers):
        sections.append(("teacher" if len(config.teachers) == 1 else f"teacher[{i}]", teacher))
    for place, section in sections:
        try:
            with torch.random.fork_rng(devices=[]):
                build_detector(section, len(classes), image_size_px, classes)
        except DetectorError as error:
            raise DetectorError(f"{place}: {error}") from error


@dataclass(frozen=True)
class FirstTrials:
    """The distillers of ``search.enqueue`` that are tried first.

    Args:
        decisions: name -> its decisions in the space.
        notes: a sentence for each of the others, why it is not tried first.
        of_portfolio: names that are of the portfolio.
    """

    decisions: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]
    of_portfolio: frozenset[str] = frozenset()

    def for_trials(self, num_trials: int) -> Mapping[str, Mapping[str, Any]]:
        """Return the decisions with which a search of some length begins.

        A long search leaves a third of its trials to the sampler; a short one tries the portfolio alone.

        Args:
            num_trials: number of trials.
        """
        most = num_trials if num_trials <= SHORT_SEARCH else math.ceil(2 * num_trials / 3)
        kept = set([name for name in self.decisions if name in self.of_portfolio][:most])
        return {name: found for name, found in self.decisions.items() if name in kept or name not in self.of_portfolio}


def first_trials(config: RunConfig, pair: Pair, space: AnySpace, portfolio: Portfolio | None = None) -> FirstTrials:
    """Look up the enqueued distillers in the part of the space that the pair supplies.

    Presets are taken at one gradient ratio, or at the nearest that the space offers.

    Args:
        config: the configuration, with ``search.enqueue``.
        pair: what its detectors supply.
        space: the part of the space that the pair supplies.
        portfolio: distillers that ``portfolio`` stands for; None: those of AutoKD's own portfolio.

    Returns:
        Those that the space offers, and sentences on the others.
    """
    decisions: dict[str, Mapping[str, Any]] = {}
    notes: list[str] = []
    of_portfolio: set[str] = set()
    for name in config.search.enqueue:
        if name == PORTFOLIO and isinstance(space, PartSpace):
            queue = (portfolio or load_portfolio().without(config.search.portfolio_without)).queue(space)
            decisions |= {each.name: decisions_of_sum(space, each.summands) for each in queue}
            of_portfolio |= {each.name for each in queue}
            continue
        for preset in OPERATOR_QUEUE if name == PORTFOLIO else (name,):
            spec = load_distiller(preset, pair.family)
            if lacks := pair.lacks(spec):
                notes.append(f"search.enqueue: {preset} is not tried first: {'; '.join(lacks)}. Leave it out.")
                continue
            try:
                decisions[preset] = _decisions_of(preset, spec, space, config.search.enqueue_gradient_ratio)
            except SpaceError as error:
                notes.append(
                    f"search.enqueue: {preset} is not tried first, it lies outside the space: {error} Offer that in "
                    "'space', or leave the name out."
                )
    return FirstTrials(decisions, tuple(notes), frozenset(of_portfolio))


def _decisions_of(name: str, spec: DistillerSpec, space: AnySpace, gradient_ratio: float) -> Mapping[str, Any]:
    if not isinstance(space, PartSpace):
        return decisions_of(space, with_offered_ratios(space, spec.with_gradient_ratio(gradient_ratio)))
    if name in preset_names():
        return decisions_of_sum(space, [nearest_summand(space, name, gradient_ratio)])
    return decisions_of(space, spec)


def family_notes(specs: Iterable[DistillerSpec], family: str | None) -> tuple[str, ...]:
    """Return a sentence for each distiller that has weights for families of detectors: which of them it has.

    Args:
        specs: distillers as they were loaded for the pair.
        family: family of the pair's student; None: of none, or unknown.
    """
    notes = []
    for spec in specs:
        if spec.family in ("", ANY_FAMILY):
            continue
        note = f"{spec.name or 'a distiller'}: as published for {spec.family} detectors"
        note += f" ({spec.release})" if spec.release else ""
        if not serves(spec.family, family):
            note += f"; the student is {family or 'of none of its families'}, for which nothing was published"
        notes.append(note + ".")
    return tuple(dict.fromkeys(notes))


def _listed(lacks: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    return "".join(f"  {name}: {'; '.join(reasons)}\n" for name, reasons in lacks)
