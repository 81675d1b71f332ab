"""What a folder of data, the working directory and the machine hold, before there is a config file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from autokd.config import KNOWN_LAYOUTS, Data, with_layout
from autokd.data import Datasets, load_datasets
from autokd.errors import ConfigError

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".safetensors")
_MAX_CHECKPOINTS = 20


@dataclass(frozen=True)
class SplitFindings:
    """Counts of one split.

    Args:
        name: its name.
        images: images.
        boxes: boxes.
        warnings: irregularities.
    """

    name: str
    images: int
    boxes: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """What was found.

    Args:
        root: folder of the data.
        data: keys of the section ``data`` that the layout decides.
        splits: the splits.
        classes: names, in the order of the labels.
        boxes_of_class: boxes of each class in train.
        image_size_px: median (height, width) of the images.
        box_side_px: 10th, 50th and 90th percentile of the boxes' sides, the root of their area, in px of the images.
        has_test: whether there is a test split.
        shared: sentences on images that splits share.
        checkpoints: files of weights near by.
        cards: name and memory in bytes of each GPU.
        cores: processor cores that this process may use.
    """

    root: Path
    data: Mapping[str, Any]
    splits: Sequence[SplitFindings]
    classes: tuple[str, ...]
    boxes_of_class: tuple[int, ...]
    image_size_px: tuple[int, int]
    box_side_px: tuple[float, float, float]
    has_test: bool
    shared: tuple[str, ...]
    checkpoints: tuple[Path, ...]
    cards: tuple[tuple[str, int], ...]
    cores: int

    def lines(self) -> Iterator[str]:
        """Yield a line for each finding."""
        yield f"layout: {self.data['format']}, {self.root}"
        for split in self.splits:
            yield f"{split.name}: {split.images:,} images, {split.boxes:,} boxes"
            yield from (f"  {warning}" for warning in split.warnings)
        if not self.has_test:
            yield "no test split: results are reported on val, on which the winner is chosen too"
        yield from self.shared
        named = [f"{name} ({count:,})" for name, count in zip(self.classes, self.boxes_of_class)]
        more = f", and {len(named) - 12} more" if len(named) > 12 else ""
        yield f"{len(named)} classes: {', '.join(named[:12])}{more}"
        height, width = self.image_size_px
        small, middle, large = self.box_side_px
        yield f"images: {height} x {width} px by the median"
        yield f"boxes: sides of {small:.0f}, {middle:.0f} and {large:.0f} px (10th, 50th and 90th percentile)"
        yield f"checkpoints: {', '.join(map(str, self.checkpoints)) or 'none here or beside the data'}"
        cards = ", ".join(f"{name} ({size / 2**30:.0f} GiB)" for name, size in self.cards) or "none"
        yield f"GPUs: {cards}; {self.cores} processor cores"


def look(root: Path, cache_dir: Path) -> Findings:
    """Look at a folder of data, at the files of weights near by, and at the machine.

    Args:
        root: folder of the data set, in a layout that is known.
        cache_dir: folder of the cache, into which another format than COCO's is converted.

    Raises:
        ConfigError: if the folder is missing, or has no known layout.
        DataError: if the data are broken.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder. Give the folder that holds the data set, seen from {Path.cwd()}.")
    section = with_layout({"root": str(root)})
    if section["format"] == "coco" and "train" not in section:
        raise ConfigError(
            f"{root}: no layout that is known: {KNOWN_LAYOUTS}. Give the folder that holds such a layout, or write the "
            "section 'data' with its keys 'train' and 'val' by hand (docs/data.md)."
        )
    try:
        data = TypeAdapter(Data).validate_python(section)
    except ValidationError as error:
        raise ConfigError(f"{root}: {error.errors()[0]['msg']}.") from None
    datasets = load_datasets(data, cache_dir, check=False)
    sizes = np.array([datasets.train.original_size(index) for index in range(datasets.train.num_images)])
    height, width = np.median(sizes, axis=0)
    return Findings(
        root=root,
        data={key: value for key, value in section.items() if key != "root"},
        splits=tuple(_split(split) for split in datasets.splits),
        classes=datasets.classes,
        boxes_of_class=tuple(int(count) for count in datasets.train.boxes_by_class().sum(axis=0)),
        image_size_px=(int(height), int(width)),
        box_side_px=_sides(datasets),
        has_test=not datasets.test_is_val,
        shared=datasets.shared_images,
        checkpoints=_checkpoints(root),
        cards=_cards(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


def _split(split: Any) -> SplitFindings:
    report = split.examine()
    return SplitFindings(split.name, report.num_images, report.num_boxes, report.warnings())


def _sides(datasets: Datasets) -> tuple[float, float, float]:
    """Return percentiles of the root of the boxes' areas in train; 0 if there are no boxes."""
    found = datasets.train.split
    areas = [
        (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        for boxes, _ in (found.trained_objects(index) for index in range(len(found)))
    ]
    sides = np.sqrt(np.concatenate(areas)) if areas else np.zeros(0)
    if not len(sides):
        return 0.0, 0.0, 0.0
    low, middle, high = np.percentile(sides, [10, 50, 90])
    return float(low), float(middle), float(high)


def _checkpoints(root: Path) -> tuple[Path, ...]:
    """Return files of weights in the working directory, beside the data and in the data's folder."""
    found: dict[Path, Path] = {}
    for folder in (Path("."), root, root.parent):
        for path in sorted(folder.iterdir()):
            if path.suffix in CHECKPOINT_SUFFIXES and path.is_file():
                found.setdefault(path.resolve(), path)
    return tuple(found.values())[:_MAX_CHECKPOINTS]


def _cards() -> tuple[tuple[str, int], ...]:
    if not torch.cuda.is_available():
        return ()
    cards = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    return tuple((card.name, card.total_memory) for card in cards)
