"""The winner as the tools of its own framework load it, such as ``student.py`` and ``student.pth`` of MMDetection."""

from __future__ import annotations

from pathlib import Path

from autokd.config import ResolvedConfig
from autokd.data import Datasets
from autokd.data.views import PAD_RGB
from autokd.detectors import Detector, build_detector, framework_of, load_weights


def export_student(config: ResolvedConfig, datasets: Datasets, weights: Path, folder: Path) -> tuple[Path, ...]:
    """Write the student's files for its framework into ``folder``; return their paths, none if it has no such files.

    Args:
        config: the run's configuration.
        datasets: the run's data, which say classes and sizes of images.
        weights: a ``student.pt`` of this run.
        folder: where the files go.
    """
    section, train = config.student, datasets.train

    def load_detector() -> Detector:
        detector = build_detector(section, train.num_classes, train.image_size_px, train.classes)
        load_weights(detector, weights)
        return detector

    sizes = (split.original_size(index) for split in datasets.splits for index in range(split.num_images))
    return framework_of(section).export(
        section,
        load_detector,
        train.classes,
        train.image_size_px,
        folder,
        pad_rgb=PAD_RGB,
        original_sizes=sizes,
        # Frameworks of third parties may know no second frame.
        **({"has_two_frames": True} if any(split.frames.has_two for split in datasets.splits) else {}),
    )
