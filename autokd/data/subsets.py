"""Rules that choose a part of a split's images: at random, with the classes' shares, or spread over features.

Each rule is a pure function of its arguments and a seed, and returns indices in rising order.

Legend: N images, K classes, C features, P images of the pool.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autokd.errors import DataError

_SUBSET_STREAM, _STRATIFIED_STREAM, _CENTER_STREAM = 201, 204, 205
_POOL_SIZE = 64
"""Images that compete for the next place of a stratified subset. If all N did, the subset would hold average images."""

Floats = NDArray[np.float64]


def subset_size(num_images: int, fraction: float) -> int:
    """Return the number of images in a fraction of them, rounded up; at least one.

    Args:
        num_images: all images.
        fraction: share of them, above 0.
    """
    assert fraction > 0, "a subset is not empty"
    # Reduced by a rounding error's width, so that 0.1 of 30 images are 3 and not 4.
    return min(num_images, max(1, int(np.ceil(num_images * fraction - 1e-9))))


def subset_indices(num_images: int, fraction: float | None, seed: int) -> tuple[int, ...]:
    """Choose images at random.

    Args:
        num_images: images of the split.
        fraction: share of the images, rounded up; None or 1: all of them.
        seed: seed of the choice.

    Returns:
        Positions of the chosen images in [0, num_images), each once, in rising order.
    """
    if fraction is None or fraction >= 1:
        return tuple(range(num_images))
    count = subset_size(num_images, fraction)
    return _rising(np.random.default_rng([seed, _SUBSET_STREAM]).permutation(num_images)[:count])


def stratified_indices(
    boxes_NK: NDArray[np.int64], fraction: float, seed: int, *, shows_every_class: bool = True
) -> tuple[int, ...]:
    """Choose images in which the classes have the same shares of boxes as in all images, and every class occurs.

    First come a few images that together show every class, found greedily and the same for every seed. Then images are
    added one by one: of the next few in an order drawn by the seed, the one after which the classes' counts are nearest
    to those of as many average images, in the chi-squared sense. So the number of boxes an image is kept, too.

    Args:
        boxes_NK: boxes of each class in each image.
        fraction: share of the images, rounded up.
        seed: seed of the order.
        shows_every_class: whether a fraction that is too small to show every class is an error. If not, its images are
            those that show the most.

    Returns:
        Positions of the chosen images in [0, N), each once, in rising order.

    Raises:
        DataError: if the fraction is too small to show every class, whatever the seed.
    """
    num_images = len(boxes_NK)
    count = subset_size(num_images, fraction)
    counts_NK = boxes_NK.astype(np.float64)
    chosen = _cover(counts_NK > 0)
    if len(chosen) > count and shows_every_class:
        raise DataError(
            f"proxy.subset is {fraction:g}: {count} of {num_images} images cannot show every class, which takes "
            f"{len(chosen)}. Set it to at least {len(chosen) / num_images:.3g}, or take 'subset_rule: random'."
        )
    chosen = chosen[:count]
    totals_K = counts_NK.sum(axis=0)
    average_K = totals_K / num_images
    weights_K = np.divide(1.0, totals_K, out=np.zeros_like(totals_K), where=totals_K > 0)
    held_K = counts_NK[chosen].sum(axis=0)
    order_N = np.random.default_rng([seed, _STRATIFIED_STREAM]).permutation(num_images)
    waiting = order_N[~np.isin(order_N, chosen)].tolist()
    while len(chosen) < count:
        pool = waiting[:_POOL_SIZE]
        excess_PK = held_K + counts_NK[pool] - (len(chosen) + 1) * average_K
        best = waiting.pop(int(np.argmin((excess_PK**2 * weights_K).sum(axis=1))))
        chosen.append(best)
        held_K = held_K + counts_NK[best]
    return _rising(chosen)


def _cover(shows_NK: NDArray[np.bool_]) -> list[int]:
    """Return a few images that show every class: each time the image with the most classes not shown yet."""
    missing_K = shows_NK.any(axis=0)
    chosen: list[int] = []
    while missing_K.any():
        chosen.append(int(np.argmax((shows_NK & missing_K).sum(axis=1))))
        missing_K = missing_K & ~shows_NK[chosen[-1]]
    return chosen


def k_center_indices(features_NC: NDArray[Any], fraction: float, seed: int) -> tuple[int, ...]:
    """Choose images so that every image has a near one among them: farthest-point traversal.

    Gonzalez, Clustering to minimize the maximum intercluster distance (1985): the seed draws the first image, then each
    time the image farthest from all chosen ones is added. The greatest distance to a chosen image is at most twice the
    least possible. Each chosen image takes N * C operations.

    Args:
        features_NC: features of the images, compared by Euclidean distance.
        fraction: share of the images, rounded up.
        seed: seed of the first image.

    Returns:
        Positions of the chosen images in [0, N), each once, in rising order.
    """
    features_NC = np.asarray(features_NC, dtype=np.float64)
    features_NC = features_NC - features_NC.mean(
        axis=0
    )  # distances from squares: smaller numbers lose less to rounding
    num_images = len(features_NC)
    squares_N = np.einsum("nc,nc->n", features_NC, features_NC)
    nearest_N = np.full(num_images, np.inf)
    chosen = [int(np.random.default_rng([seed, _CENTER_STREAM]).integers(num_images))]
    for _ in range(subset_size(num_images, fraction) - 1):
        last = chosen[-1]
        nearest_N = np.minimum(nearest_N, squares_N - 2 * features_NC @ features_NC[last] + squares_N[last])
        nearest_N[chosen] = -np.inf  # no image twice, even if all that are left equal a chosen one
        chosen.append(int(np.argmax(nearest_N)))
    return _rising(chosen)


def _rising(indices: Any) -> tuple[int, ...]:
    return tuple(int(index) for index in np.sort(np.asarray(indices)))
