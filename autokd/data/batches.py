"""Which images, in which views, make up the batches of an epoch: pure functions of (seed, epoch)."""

from __future__ import annotations

import numpy as np

_SUBSET_STREAM, _ORDER_STREAM, _VIEW_STREAM = 201, 202, 203

Batch = list[tuple[int, int]]
"""(image index, view number) of each image of a batch."""


def subset_indices(num_images: int, fraction: float | None, seed: int) -> tuple[int, ...]:
    """Choose a fraction (rounded up) of the images by ``seed``, in rising order; None or 1: all of them."""
    if fraction is None or fraction >= 1:
        return tuple(range(num_images))
    assert fraction > 0, "a subset holds something"
    # Less a rounding error's width, so that 0.1 of 30 images are 3 and not 4.
    count = max(1, int(np.ceil(num_images * fraction - 1e-9)))
    chosen = np.random.default_rng([seed, _SUBSET_STREAM]).permutation(num_images)[:count]
    return tuple(int(index) for index in np.sort(chosen))


def view_numbers(num_images: int, seed: int, epoch: int, num_views: int) -> list[int]:
    """The view number of every image in ``epoch``.

    An image goes round its views one an epoch, from a start of its own, so that ``num_views`` epochs show each
    view once and an epoch mixes all of them.
    """
    starts = np.random.default_rng([seed, _VIEW_STREAM]).integers(num_views, size=num_images)
    return [int(number) for number in (starts + epoch) % num_views]


def epoch_batches(
    num_images: int, batch_size: int, seed: int, epoch: int, num_views: int, subset: float | None = None
) -> list[Batch]:
    """Shuffle the images (or the ``subset`` fraction chosen by ``seed``) into batches for one epoch.

    No image is left out: the last batch may be smaller.
    """
    indices = subset_indices(num_images, subset, seed)
    numbers = view_numbers(num_images, seed, epoch, num_views)
    order = np.random.default_rng([seed, _ORDER_STREAM, epoch]).permutation(len(indices))
    pairs = [(indices[i], numbers[indices[i]]) for i in order]
    return [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
