"""Which images, in which views, make up the batches of an epoch: pure functions of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autokd.data.subsets import subset_indices

_ORDER_STREAM, _VIEW_STREAM = 202, 203

Batch = list[tuple[int, int]]
"""(image index, view number) of each image of a batch."""


def view_numbers(num_images: int, seed: int, epoch: int, num_views: int) -> list[int]:
    """The view number of every image in ``epoch``.

    An image goes round its views one an epoch, from a start of its own, so that ``num_views`` epochs show each
    view once and an epoch mixes all of them.
    """
    starts = np.random.default_rng([seed, _VIEW_STREAM]).integers(num_views, size=num_images)
    return [int(number) for number in (starts + epoch) % num_views]


def epoch_batches(
    num_images: int,
    batch_size: int,
    seed: int,
    epoch: int,
    num_views: int,
    subset: float | None = None,
    indices: Sequence[int] | None = None,
) -> list[Batch]:
    """Shuffle images into batches for one epoch: all, or the ``subset`` fraction chosen by ``seed``, or ``indices``.

    No image is left out: the last batch may be smaller.
    """
    if indices is None:
        indices = subset_indices(num_images, subset, seed)
    numbers = view_numbers(num_images, seed, epoch, num_views)
    order = np.random.default_rng([seed, _ORDER_STREAM, epoch]).permutation(len(indices))
    pairs = [(indices[i], numbers[indices[i]]) for i in order]
    return [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
