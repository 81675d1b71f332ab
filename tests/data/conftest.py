"""Small COCO sets written by hand, to be spoiled one fault at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autokd.config import CocoData
from autokd.data import DetectionDataset, load_split


@dataclass
class CocoSet:
    """Three photographs of 60 x 40 pixels with two classes; ``data`` may be changed before ``load``."""

    root: Path
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def annotation_path(self) -> Path:
        return self.root / "train.json"

    def image_path(self, image_id: int) -> Path:
        return self.root / "images" / self.data["images"][image_id - 1]["file_name"]

    def write(self, name: str = "train.json") -> Path:
        (self.root / name).write_text(json.dumps(self.data))
        return self.root / name

    def load(self, image_size_px: tuple[int, int] = (40, 60), **settings: Any) -> DetectionDataset:
        """Write the JSON and read the split, without looking at the images."""
        return load_split(self.write(), self.root / "images", image_size_px, **settings)

    def config(self, **changes: Any) -> CocoData:
        return CocoData(root=self.root, train="train.json", val="train.json", image_size_px=(40, 60), **changes)


@pytest.fixture
def make_coco(tmp_path: Path) -> Callable[[], CocoSet]:
    """Return a maker of ``CocoSet`` in folders of their own."""
    made: list[CocoSet] = []

    def make() -> CocoSet:
        root = tmp_path / f"set_{len(made)}"
        (root / "images").mkdir(parents=True)
        rng = np.random.default_rng(0)
        images = []
        for image_id in (1, 2, 3):
            name = f"{image_id}.png"
            Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(root / "images" / name)
            images.append({"id": image_id, "file_name": name, "width": 60, "height": 40})
        annotations = [
            {"id": 11, "image_id": 1, "category_id": 1, "bbox": [5, 6, 20, 10], "area": 200, "iscrowd": 0},
            {"id": 12, "image_id": 1, "category_id": 2, "bbox": [30, 10, 15, 25], "area": 375, "iscrowd": 0},
            {"id": 13, "image_id": 2, "category_id": 2, "bbox": [0, 0, 60, 40], "area": 2400, "iscrowd": 0},
        ]
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        made.append(CocoSet(root, {"images": images, "annotations": annotations, "categories": categories}))
        return made[-1]

    return make


@pytest.fixture
def coco(make_coco: Callable[[], CocoSet]) -> CocoSet:
    return make_coco()
