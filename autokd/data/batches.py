"""Batches of an epoch: images and their views, as pure functions of (seed, epoch).

A training that is resumed, or runs on another machine, therefore sees the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autokd.data.orientation import grouped
from autokd.data.subsets import subset_indices

_ORDER_STREAM, _VIEW_STREAM = 202, 203

Batch = list[tuple[int, int]]
"""(image index, view number) of each image of a batch."""


def view_numbers(num_images: int, seed: int, epoch: int, num_views: int | None) -> list[int]:
    """Return the view number of every image in an epoch.

    An image moves on to its next view with every epoch, from a first view of its own. So ``num_views`` epochs show each
    view once, and every epoch mixes all of them. The number of an endless view is that of the epoch.

    Args:
        num_images: images of the split.
        seed: training seed.
        epoch: number of the epoch.
        num_views: views of each image; None: endless.

    Returns:
        One number in [0, num_views) an image.
    """
    if num_views is None:
        return [epoch] * num_images
    starts = np.random.default_rng([seed, _VIEW_STREAM]).integers(num_views, size=num_images)
    return [int(number) for number in (starts + epoch) % num_views]


def epoch_batches(
    num_images: int,
    batch_size: int,
    seed: int,
    epoch: int,
    num_views: int | None,
    subset: float | None = None,
    indices: Sequence[int] | None = None,
    turned_N: NDArray[np.bool_] | None = None,
) -> list[Batch]:
    """Shuffle images into the batches of one epoch.

    Args:
        num_images: images of the split.
        batch_size: images of a batch; the last batch may be smaller, so that no image is left out.
        seed: training seed.
        epoch: number of the epoch.
        num_views: views of each image; None: endless.
        subset: fraction of the images, chosen by ``seed``; None: all. Not used if ``indices`` are given.
        indices: images to use.
        turned_N: whether an image of the split is shown in the turned frame; a batch has one frame (``grouped``).
            None: all have the same.

    Returns:
        Batches of (image index, view number).
    """
    if indices is None:
        indices = subset_indices(num_images, subset, seed)
    numbers = view_numbers(num_images, seed, epoch, num_views)
    order = np.random.default_rng([seed, _ORDER_STREAM, epoch]).permutation(len(indices))
    pairs = [(indices[i], numbers[indices[i]]) for i in order]
    return grouped(pairs, batch_size, np.zeros(num_images, dtype=bool) if turned_N is None else turned_N)
