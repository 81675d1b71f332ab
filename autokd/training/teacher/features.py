"""Features of images in a teacher's eyes, by which subsets are spread: a few numbers an image, kept without its taps.

Legend: N images, V views, B images of a batch, C channels, H x W cells.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from autokd.detector_outputs import PYRAMID_TAP
from autokd.detectors import Detector
from autokd.files import atomic_file
from autokd.locks import exclusive_lock
from autokd.training.loader import Loader
from autokd.training.teacher.cache_build import Progress


def obtain_features(
    path: Path, loader: Loader, make_teacher: Callable[[], Detector], on_progress: Progress | None = None
) -> np.ndarray:
    """Return the mean of the pyramid's coarsest level over cells and views; compute and store it if it is missing.

    Args:
        path: file of the features.
        loader: the images in their views, of which there is a finite number.
        make_teacher: returns the teacher; called only to compute.
        on_progress: called with (batches done, batches in all).

    Returns:
        (N, C) float64; as a cache of the same taps would give it, whose numbers are float16.
    """
    if (found := _read(path, loader.plan.num_images)) is not None:
        return found
    with exclusive_lock(path):
        if (found := _read(path, loader.plan.num_images)) is None:
            found = _compute(loader, make_teacher(), on_progress)
            with atomic_file(path) as temporary, temporary.open("wb") as file:
                np.save(file, found)
    return found


def _read(path: Path, num_images: int) -> np.ndarray | None:
    """Return the stored features; None if they are missing, cut short, or not finite."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 2 and len(found) == num_images and bool(np.isfinite(found).all()) else None


@torch.no_grad()
def _compute(loader: Loader, teacher: Detector, on_progress: Progress | None) -> np.ndarray:
    teacher = teacher.to(loader.device).eval()
    plan = loader.plan
    assert plan.num_views is not None, "endless views have no mean"
    pairs = [(image, view) for image in range(plan.num_images) for view in range(plan.num_views)]
    batches = loader.batches(pairs)
    sums_NC: np.ndarray | None = None
    for done, batch in enumerate(loader.of_pairs(batches), start=1):
        outputs = teacher(batch.images_BCHW, taps=(PYRAMID_TAP,))
        coarsest = max(outputs.strides, key=lambda level: outputs.strides[level])
        means_BC = outputs.pyramid[coarsest].half().double().mean(dim=(2, 3)).cpu().numpy()
        if sums_NC is None:
            sums_NC = np.zeros((plan.num_images, means_BC.shape[1]))
        np.add.at(sums_NC, [image for image, _ in batch.pairs], means_BC)
        if on_progress is not None:
            on_progress(done, len(batches))
    assert sums_NC is not None, "a plan has views"
    return sums_NC / plan.num_views
