"""Checks by configuration whether the predictions of two detectors may be compared row by row.

Rows of ``class_logits`` and ``boxes`` are candidates (``autokd.detectors.candidates``). Two prediction layouts match if
both detectors have the same cells with the same anchors; layouts of queries never match.
"""

from __future__ import annotations

from collections.abc import Iterator

from autokd.config import DetectorSection, RunConfig
from autokd.detector_outputs import taps_where
from autokd.detectors.candidates import PredictionLayout
from autokd.detectors.framework import framework_of

_TOLERANCE = 0.15
"""Relative difference between anchors' sides that still match: torchvision rounds them to whole pixels."""


def prediction_layout_of(
    config: DetectorSection, image_size_px: tuple[int, int], seen_size_px: tuple[int, int] | None = None
) -> PredictionLayout | None:
    """Return how a section's detector lists its candidates; None if it has none that could be compared.

    Args:
        config: the section ``teacher`` or ``student``.
        image_size_px: (height, width) for which the detector is built.
        seen_size_px: (height, width) of the images that it is fed with; None: ``image_size_px``.
    """
    return framework_of(config).layout(config, image_size_px, seen_size_px or image_size_px)


def unpaired_taps(config: RunConfig, *, promoting: bool = False) -> dict[str, str]:
    """Return tap -> why the student's and a teacher's cannot be compared row by row, for ``Space.supplied_by``.

    The entry "cells" is there if a teacher's candidates do not lie on cells of its levels.

    Their layouts must match on the images of full trainings and on those of proxies.

    Args:
        config: the configuration of the run.
        promoting: whether a student that may be promoted counts among the teachers.
    """
    size = (int(config.data.image_size_px[0]), int(config.data.image_size_px[1]))
    found: dict[str, str] = {}
    for seen in dict.fromkeys((size, config.proxy.image_size_px or size)):
        student = prediction_layout_of(config.student, size, seen)
        for i, section in enumerate(config.teachers, start=1):
            whose = "the teacher's" if len(config.teachers) == 1 else f"teacher {i}'s"
            teacher = prediction_layout_of(section, size, seen)
            if student is not None and teacher is not None:
                found = dict(_unpaired(student, teacher, whose)) | found
            if teacher is not None and not teacher.cells:
                found = {"cells": f"{whose} are {teacher}"} | found
        if promoting and config.search.promote_after and student is not None and not student.cells:
            found = {"cells": f"those of a promoted student are {student}"} | found
    return found


def _unpaired(student: PredictionLayout, teacher: PredictionLayout, whose: str) -> Iterator[tuple[str, str]]:
    if not _match(student, teacher):
        reason = f"the student's is {student}, {whose} {teacher}"
        if student.cells == teacher.cells and student.anchors_per_cell == teacher.anchors_per_cell > 1:
            reason = f"the student's anchors have other sides than {whose}"
        yield from ((tap, f"prediction layouts do not match: {reason}") for tap in taps_where(is_by_candidate=True))
    elif student.num_bins != teacher.num_bins:
        yield "edge_logits", f"edges have {student.num_bins} bins in the student, {whose} {teacher.num_bins}"
    if [cell[0] for cell in student.cells] != [cell[0] for cell in teacher.cells]:
        yield "head", f"{whose} head reads other levels than the student's"


def _match(student: PredictionLayout, teacher: PredictionLayout) -> bool:
    # Queries have no cells: two lists of them never match, not even equal ones.
    if not student.cells or student.cells != teacher.cells or student.anchors_per_cell != teacher.anchors_per_cell:
        return False
    sides = zip(
        (side for pair in student.anchors for side in pair), (side for pair in teacher.anchors for side in pair)
    )
    return all(abs(one - other) <= _TOLERANCE * max(one, other) for one, other in sides)
