"""Images that several splits of a set share: results on them are not those of unseen images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from autokd.data.dataset import DetectionDataset

_CONSEQUENCES = {
    ("train", "val"): "candidates and the winner are chosen on images that they were trained on",
    ("train", "test"): "results on test count images that were trained on",
    ("val", "test"): "test AP counts images on which the winner was chosen",
}


def shared_images(splits: Sequence[DetectionDataset]) -> tuple[str, ...]:
    """Return a sentence for each pair of splits that have images in common.

    Files are compared by length, start, middle and end, whatever their names.

    Args:
        splits: different splits of a set.
    """
    found = []
    for first, second in combinations(splits, 2):
        count = len(np.intersect1d(first.files.samples, second.files.samples))
        if count:
            of_both = f"{first.num_images} and {second.num_images}"
            consequence = _CONSEQUENCES.get((first.name, second.name), "their results are not independent")
            found.append(
                f"{first.name} and {second.name} share {count} images (of {of_both}), so that {consequence}. Take the "
                "shared images out of one of them."
            )
    return tuple(found)
