"""Distillers that the detectors of a run can be trained with, found from the configuration before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from autokd.config import RunConfig
from autokd.detectors.build import build_detector
from autokd.detectors.capabilities import detector_family_of, taps_of, taps_of_teachers
from autokd.detectors.framework import framework_of
from autokd.detectors.prediction_layout import unpaired_taps
from autokd.detectors.resolve import resolve
from autokd.errors import ConfigError, DetectorError, SpaceError
from autokd.jobs import NO_DISTILLATION
from autokd.presets import load_distiller, load_preset, preset_names
from autokd.space import (
    DataContent,
    Space,
    decisions_of,
    lacks_of,
    restrict_to_counts,
    restrict_to_taps,
    with_offered_ratios,
)
from autokd.spec import Counts, DistillerSpec
from autokd.spec.families import ANY_FAMILY, DetectorFamily, serves
from autokd.spec.needs import UNKNOWN


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

    def part_of(self, space: Space) -> tuple[Space, tuple[str, ...]]:
        """Return the part of a space that can teach this pair, and a sentence for each option left out.

        Args:
            space: the whole space of the configuration.

        Raises:
            SpaceError: if nothing of it can.
        """
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
    """

    decisions: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]


def first_trials(config: RunConfig, pair: Pair, space: Space) -> FirstTrials:
    """Look up the enqueued distillers, all at one gradient ratio, in the part of the space that the pair supplies.

    Args:
        config: the configuration, with ``search.enqueue``.
        pair: what its detectors supply.
        space: the part of the space that the pair supplies.

    Returns:
        Those that the space offers, and sentences on the others.
    """
    decisions, notes = {}, []
    for name in config.search.enqueue:
        spec = load_distiller(name, pair.family).with_gradient_ratio(config.search.enqueue_gradient_ratio)
        if lacks := pair.lacks(spec):
            notes.append(f"search.enqueue: {name} is not tried first: {'; '.join(lacks)}. Leave it out.")
            continue
        try:
            decisions[name] = decisions_of(space, with_offered_ratios(space, spec))
        except SpaceError as error:
            notes.append(
                f"search.enqueue: {name} is not tried first, it lies outside the space: {error} Offer that in 'space', "
                "or leave the name out."
            )
    return FirstTrials(decisions, tuple(notes))


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
