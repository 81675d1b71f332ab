"""An exported detector against the detector itself: greatest differences of boxes and scores.

Legend: n detections of one side, m of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from autokd.detectors import Detections

TOLERANCE_PX = 0.1
"""Greatest difference of a box's side that counts as equal, in pixels of the network's input."""
TOLERANCE_SCORE = 1e-3
"""Greatest difference of scores that counts as equal."""
MIN_SCORE = 0.05
"""Score from which detections are compared; below it, the last of the kept hundred depend on rounding."""
SAME_OBJECT_PX = 4.0
"""Greatest difference of a side of two boxes of one object. By sides and not by overlap, since a box without area,
which a detector may find at the border, overlaps nothing."""


@dataclass(frozen=True)
class Differences:
    """Greatest differences over all images.

    Args:
        num_images: images that were compared.
        num_boxes: detections of the detector itself with a score of ``MIN_SCORE`` or more.
        max_box_px: greatest difference of a side of matched boxes, in pixels of the network's input.
        max_score: greatest difference of the scores of matched boxes.
        num_unmatched: detections of either side without a partner of equal label within ``SAME_OBJECT_PX``; those
            within the tolerance of ``MIN_SCORE`` do not count.
    """

    num_images: int
    num_boxes: int
    max_box_px: float
    max_score: float
    num_unmatched: int

    @property
    def is_within_tolerance(self) -> bool:
        """Whether every detection has its partner, within ``TOLERANCE_PX`` and ``TOLERANCE_SCORE``."""
        return self.num_unmatched == 0 and self.max_box_px <= TOLERANCE_PX and self.max_score <= TOLERANCE_SCORE

    def to_data(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def compare(
    eager: Callable[[Tensor], Detections], exported: Callable[[Tensor], Detections], images: Sequence[Tensor]
) -> Differences:
    """Compare the detections of two detectors.

    Args:
        eager: the detector itself, from (1, 3, H, W) to detections.
        exported: the exported one.
        images: (3, H, W) images in the network's input.
    """
    num_boxes = num_unmatched = 0
    max_box_px = max_score = 0.0
    for image_CHW in images:
        ours, theirs = eager(image_CHW[None]), exported(image_CHW[None])
        num_boxes += int((ours["scores"] >= MIN_SCORE).sum())
        pairs = _pairs(ours, theirs)
        num_unmatched += _num_alone(ours, [i for i, _ in pairs]) + _num_alone(theirs, [j for _, j in pairs])
        for i, j in pairs:
            max_box_px = max(max_box_px, float((ours["boxes"][i] - theirs["boxes"][j]).abs().max()))
            max_score = max(max_score, float((ours["scores"][i] - theirs["scores"][j]).abs()))
    return Differences(len(images), num_boxes, max_box_px, max_score, num_unmatched)


def _pairs(ours: Detections, theirs: Detections) -> list[tuple[int, int]]:
    """Return indices of detections of one object: the surest first takes the nearest that is free."""
    counted = (ours["scores"] >= MIN_SCORE).nonzero().flatten().tolist()
    if not counted or not len(theirs["scores"]):
        return []
    apart_nm = (ours["boxes"][:, None] - theirs["boxes"][None]).abs().amax(dim=2)
    # Of equally near ones, as duplicates are, the one with the nearest score.
    apart_nm = apart_nm + (ours["scores"][:, None] - theirs["scores"][None]).abs()
    apart_nm[ours["labels"][:, None] != theirs["labels"][None]] = torch.inf
    pairs = []
    for i in counted:
        best = int(apart_nm[i].argmin())
        if apart_nm[i, best] <= SAME_OBJECT_PX:
            apart_nm[:, best] = torch.inf
            pairs.append((i, best))
    return pairs


def _num_alone(detections: Detections, matched: Sequence[int]) -> int:
    sure = (detections["scores"] >= MIN_SCORE + TOLERANCE_SCORE).nonzero().flatten().tolist()
    return len(set(sure) - set(matched))
