"""``autokd predict``: from a run and names of images to files with boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from autokd.config import RunConfig
from autokd.errors import ConfigError, one_of
from autokd.inference.frames import find_sources, frames_of, is_video
from autokd.inference.outputs import OUTPUTS, open_outputs
from autokd.inference.predictions import predictions
from autokd.inference.trained import Side, load_trained


def predict_to_files(
    source: str | Path,
    images: Iterable[str | Path],
    out: Path,
    *,
    forms: Sequence[str] = OUTPUTS,
    threshold: float,
    config: RunConfig | None = None,
    side: Side = "student",
    batch_size: int = 8,
    every: int = 1,
    cache_dir: Path,
    on_image: Callable[[int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Detect on images and videos, and write the boxes.

    Args:
        source: run directory, or file of weights.
        images: images, videos, folders of them, or globs.
        out: folder of the predictions.
        forms: names of ``OUTPUTS``.
        threshold: least score of a box.
        config: configuration of the weights; None: that of the run directory.
        side: detector that the weights belong to.
        batch_size: images that the detector sees at once.
        every: number of a video's frames of which one is taken.
        cache_dir: folder of cached data.
        on_image: called with the number of images done, and of all; None for the latter if there is a video.

    Returns:
        "images", "boxes" and "files".

    Raises:
        AutoKDError: if there are no such images or weights, or a package of an extra is missing.
    """
    for form in forms:
        if form not in OUTPUTS:
            raise ConfigError(one_of(form, list(OUTPUTS), noun="form"))
    sources = find_sources(images)
    total = None if any(map(is_video, sources)) else len(sources)
    trained = load_trained(source, config=config, side=side, cache_dir=cache_dir)
    out = out.expanduser()
    num_images = num_boxes = 0
    with open_outputs([form for form in OUTPUTS if form in forms], out, trained.card) as outputs:
        found = predictions(trained, frames_of(sources, every), batch_size=batch_size, threshold=threshold)
        for prediction in found:
            for output in outputs:
                output.add(prediction)
            num_images, num_boxes = num_images + 1, num_boxes + len(prediction)
            if on_image is not None:
                on_image(num_images, total)
    return {"images": num_images, "boxes": num_boxes, "files": [str(output.path) for output in outputs]}
