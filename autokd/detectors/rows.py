"""What the rows of ``class_logits`` and ``boxes`` stand for, as a configuration tells: may two detectors be compared?

Row r of a dense head is an anchor of a cell of a level; two heads' rows correspond where both have the same cells with
the same anchors. A row of a query-based detector is a query, which stands for no place: no two detectors share them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autokd.config import Detector as DetectorConfig
from autokd.config import RunConfig
from autokd.detectors.torchvision.layout import choose_layout

_TOLERANCE = 0.15
"""Of sides of anchors in strides: torchvision rounds them to whole pixels."""
_PREDICTIONS = ("class_logits", "boxes", "edge_logits")

Cells = tuple[tuple[int, int, int], ...]
"""(stride in pixels, rows, columns) of each level, fine to coarse."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a detector's candidates are.

    cells: none for queries. anchors: (width, height) in strides, where a cell has several.
    """

    cells: Cells
    anchors_per_cell: int = 1
    anchors: tuple[tuple[float, float], ...] = ()
    num_bins: int = 0
    """Of an edge's distribution; 0 without."""

    @property
    def number(self) -> int:
        """How many rows an image has."""
        return self.anchors_per_cell * sum(rows * columns for _, rows, columns in self.cells)

    def __str__(self) -> str:
        if not self.cells:
            return "queries, which stand for no place"
        strides = ", ".join(str(stride) for stride, _, _ in self.cells)
        return f"{self.number} ({self.anchors_per_cell} a cell on strides {strides})"


def grid_cells(strides: Sequence[int], image_size_px: tuple[int, int], pad_multiple_px: int) -> Cells:
    """The cells of an image that is padded to a multiple of so many pixels."""
    height, width = (-(-side // pad_multiple_px) * pad_multiple_px for side in image_size_px)
    return tuple((stride, -(-height // stride), -(-width // stride)) for stride in strides)


def rows_of(
    config: DetectorConfig, image_size_px: tuple[int, int], seen_size_px: tuple[int, int] | None = None
) -> Rows | None:
    """What the rows of a section's detector are for images of (height, width) pixels; None where it has none.

    seen_size_px: of images that a detector built for ``image_size_px`` is fed with; None: just that.
    """
    seen_size_px = seen_size_px or image_size_px
    if config.framework == "mmdet":
        from autokd.detectors.mmdet import mmdet_rows

        return mmdet_rows(config, seen_size_px)
    if config.architecture == "faster_rcnn":
        return None
    layout = choose_layout(config.architecture, image_size_px)
    strides = list(layout.strides.values())
    anchors: tuple[tuple[float, float], ...] = ()
    if layout.num_anchors_per_cell > 1:
        sizes = [size / strides[0] for size in layout.anchor_sizes_px[0]]
        anchors = tuple((size / ratio**0.5, size * ratio**0.5) for ratio in layout.aspect_ratios for size in sizes)
    cells = grid_cells(strides, seen_size_px, layout.pad_multiple_px)
    return Rows(cells, layout.num_anchors_per_cell, anchors)


def unpaired_taps(config: RunConfig) -> dict[str, str]:
    """Tap -> why the student's and the teacher's cannot be compared row by row; for ``Space.supplied_by``.

    They must be comparable on the images of full trainings and on those of proxies.
    """
    size = (int(config.data.image_size_px[0]), int(config.data.image_size_px[1]))
    found: dict[str, str] = {}
    for seen in dict.fromkeys((size, config.proxy.image_size_px or size)):
        student = rows_of(config.student, size, seen)
        for i, section in enumerate(config.teachers, start=1):
            whose = "the teacher's" if len(config.teachers) == 1 else f"teacher {i}'s"
            teacher = rows_of(section, size, seen)
            if student is not None and teacher is not None:
                found = dict(_unpaired(student, teacher, whose)) | found
    return found


def _unpaired(student: Rows, teacher: Rows, whose: str) -> Iterator[tuple[str, str]]:
    if not _correspond(student, teacher):
        reason = f"the student's are {student}, {whose} {teacher}"
        if student.cells == teacher.cells and student.anchors_per_cell == teacher.anchors_per_cell > 1:
            reason = f"the student's anchors have other sides than {whose}"
        yield from ((tap, f"rows do not correspond: {reason}") for tap in _PREDICTIONS)
    elif student.num_bins != teacher.num_bins:
        yield "edge_logits", f"edges have {student.num_bins} bins in the student, {whose} {teacher.num_bins}"
    if [cell[0] for cell in student.cells] != [cell[0] for cell in teacher.cells]:
        yield "head", f"{whose} head looks at other levels than the student's"


def _correspond(student: Rows, teacher: Rows) -> bool:
    if not student.cells or student.cells != teacher.cells or student.anchors_per_cell != teacher.anchors_per_cell:
        return False
    sides = zip(
        (side for pair in student.anchors for side in pair), (side for pair in teacher.anchors for side in pair)
    )
    return all(abs(one - other) <= _TOLERANCE * max(one, other) for one, other in sides)
