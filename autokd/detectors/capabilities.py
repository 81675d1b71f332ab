"""Facts about a detector that follow from its configuration, without building it: its taps and its structure."""

from __future__ import annotations

from autokd.config import DetectorSection, RunConfig
from autokd.detectors.framework import framework_of
from autokd.spec.families import DetectorFamily


def taps_of(config: DetectorSection) -> tuple[str, ...]:
    """Return the names of the taps that a training forward can give, in the order of ``autokd.detector_outputs.TAPS``.

    Args:
        config: the section ``teacher`` or ``student``.
    """
    return framework_of(config).taps(config)


def taps_of_teachers(config: RunConfig) -> tuple[tuple[str, ...], ...]:
    """Return ``taps_of`` of every teacher; a student that may be promoted comes last.

    Args:
        config: the configuration of the run.
    """
    sections = [*config.teachers, *([config.student] if config.search.promote_after else [])]
    return tuple(map(taps_of, sections))


def detector_family_of(config: DetectorSection) -> DetectorFamily | None:
    """Return the family of a detector, by which published distillers have their weights; None if it is of none.

    Args:
        config: the section ``teacher`` or ``student``. A pair is of its student's family.
    """
    return framework_of(config).detector_family(config)


def structure_text(config: DetectorSection) -> str:
    """Return what of a section decides the model's structure: detectors of equal texts take each other's weights.

    Args:
        config: the section ``teacher`` or ``student``.
    """
    return framework_of(config).structure(config)
