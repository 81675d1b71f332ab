"""Signs in an annotation file's numbers that they mean something else than COCO's ``[x, y, width, height]`` in pixels.

Legend: M boxes.
"""

from __future__ import annotations

import posixpath
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autokd.data.annotation_file import Problems
from autokd.data.parsed_file import ParsedFile
from autokd.errors import DataError

_MIN_BOXES = 8
"""Boxes below which their form is not judged: a few may look like another one by chance."""
_OUTSIDE_SHARE = 0.1
"""Share of boxes reaching outside their image above which another form is tried."""
_FITTING_SHARE = 0.99
"""Share of boxes that must lie inside when they are read in another form."""
_CROWD_SHARE = 0.5
_TOLERANCE_PX = 1.0

CROWD_CAUSE = (
    "Some exporters mark every object that they store as a mask (RLE) with 'iscrowd': 1, which training leaves out. "
    "If they are single objects, set their 'iscrowd' to 0."
)


def refuse_repeated_files(path: Path, parsed: ParsedFile) -> None:
    """Check that no image file is listed under several ids.

    Args:
        path: the annotation file.
        parsed: its content.

    Raises:
        DataError: naming the files and their ids.
    """
    names = [posixpath.normpath(name.replace("\\", "/")) for name in parsed.file_names]
    if len(set(names)) == len(names):
        return
    ids_of: dict[str, list[int]] = {}
    for name, image_id in zip(names, parsed.image_ids.tolist()):
        ids_of.setdefault(name, []).append(image_id)
    problems = Problems(path)
    for name, ids in ids_of.items():
        if len(ids) > 1:
            problems.add(
                f"the file {name!r} is listed under the image ids {', '.join(map(str, ids))}. Each entry would be "
                "trained with a part of its objects, and the others as background: give the file one entry in "
                "'images', and that id to all of its annotations."
            )
    problems.raise_if_any()


def refuse_other_form(path: Path, boxes_xywh: NDArray[np.float64], frames: NDArray[np.int64]) -> tuple[str, ...]:
    """Check that boxes are ``[x, y, width, height]`` in pixels, as far as their numbers show it.

    Args:
        path: the annotation file.
        boxes_xywh: (M, 4), as the file has them.
        frames: (M, 2), (height, width) in pixels of each box's image.

    Returns:
        Suspicions that do not suffice for an error, a sentence each.

    Raises:
        DataError: if the boxes are parts of the image from 0 to 1, or corners ``[x1, y1, x2, y2]``.
    """
    count = len(boxes_xywh)
    has_extent = (boxes_xywh[:, 2:] > 0).all(axis=1)
    if count >= _MIN_BOXES and has_extent.any() and boxes_xywh.max() <= 1 and frames.min() > 2:
        raise DataError(
            f"{path}: all {count} boxes lie between 0 and 1, so they seem to be parts of the image and not pixels. "
            "COCO's 'bbox' is [x, y, width, height] in pixels: multiply x and width by the image's width, y and "
            "height by its height (if x and y are the center, take half of the size off them first). A set in YOLO's "
            "own files is read with 'format: yolo'."
        )
    x, y, c, d = boxes_xywh.T
    right, bottom = frames[:, 1] + _TOLERANCE_PX, frames[:, 0] + _TOLERANCE_PX
    outside = (x + c > right) | (y + d > bottom)
    if count < _MIN_BOXES or outside.mean() <= _OUTSIDE_SHARE:
        return ()
    are_corners = (c > x) & (d > y) & (c <= right) & (d <= bottom)
    if are_corners.mean() >= _FITTING_SHARE:
        raise DataError(
            f"{path}: {int(outside.sum())} of {count} boxes reach outside their image if 'bbox' is read as [x, y, "
            "width, height], and next to none as [x1, y1, x2, y2]: they seem to be corners. COCO's 'bbox' has width "
            "and height: write [x1, y1, x2 - x1, y2 - y1]."
        )
    share = f"{int(outside.sum())} of {count} boxes reach outside their image at the right or at the bottom"
    are_centers = (x - c / 2 >= -1) & (y - d / 2 >= -1) & (x + c / 2 <= right) & (y + d / 2 <= bottom)
    if are_centers.mean() >= _FITTING_SHARE:
        return (
            f"{share}, and next to none if x and y are the box's center: COCO's 'bbox' begins with the upper left "
            "corner. If they are centers, take half of width and height off them",
        )
    return (
        f"{share}: 'bbox' may have another form than [x, y, width, height] in pixels (such as corners x1, y1, x2, "
        "y2), or 'width' and 'height' of the images are those of another size",
    )


def crowd_hint(num_crowd: int, num_kept: int) -> tuple[str, ...]:
    """Return a sentence if most boxes are crowd regions, none otherwise.

    Args:
        num_crowd: crowd regions among the boxes that are kept.
        num_kept: boxes that are kept.
    """
    if num_crowd <= _CROWD_SHARE * num_kept:
        return ()
    return (f"{num_crowd} of {num_kept} boxes are crowd regions. {CROWD_CAUSE.rstrip('.')}",)
