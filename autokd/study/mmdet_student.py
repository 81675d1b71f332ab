"""The winner as plain MMDetection loads it: ``student.py`` and ``student.pth``."""

from __future__ import annotations

from pathlib import Path

from autokd.config import RunConfig
from autokd.data import Datasets
from autokd.data.views import PAD_RGB
from autokd.detectors import build_detector, load_weights


def hand_over_mmdet(config: RunConfig, datasets: Datasets, weights: Path, folder: Path) -> tuple[Path, ...]:
    """Write both files for ``init_detector`` into ``folder``; return their paths, none for another framework's student.

    weights: a ``student.pt`` of this run.
    """
    section = config.student
    if section.framework != "mmdet":
        return ()
    from autokd.detectors.mmdet import MmdetAdapter, export_student

    train = datasets.train
    detector = build_detector(section, train.num_classes, train.image_size_px, train.classes)
    assert isinstance(detector, MmdetAdapter)
    load_weights(detector, weights)
    sizes = [split.original_size(index) for split in datasets.splits for index in range(split.num_images)]
    return export_student(
        detector, section, train.classes, train.image_size_px, folder, pad_rgb=PAD_RGB, original_sizes=sizes
    )
