"""Writes generated images as a COCO data set; 60% of the training images show a single object and the others none.

    python experiments/weight_rules/few_objects.py work/few_objects

In batches of two, the first batch of a training often holds one object, which some terms have nothing to compare with.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autokd.config import ShapesData
from autokd.data.scene import SHAPES, SceneObject
from autokd.data.shapes import draw_image
from autokd.data.textures import ground

CONFIG = ShapesData(format="shapes", seed=15)
NUM_TRAIN, NUM_SINGLE, NUM_TEST = 64, 38, 150
LABELS = {list(SHAPES).index(name): i for i, name in enumerate(("disc", "star", "cross"))}
SMALLEST_PX = 28
"""Images whose every object is one of three shapes and at least so large, which 320 steps from scratch can learn."""


def main(folder: Path) -> None:
    singles = itertools.islice((each for each in learnable("train") if len(each[1]) == 1), NUM_SINGLE)
    write(folder, "train", [*singles, *(empty(number) for number in range(NUM_TRAIN - NUM_SINGLE))])
    for split in ("val", "test"):
        write(folder, split, list(itertools.islice(learnable(split), NUM_TEST)))


def empty(number: int) -> tuple[Any, list[SceneObject]]:
    rng = np.random.Generator(np.random.PCG64([CONFIG.seed, number]))
    return np.round(ground(rng, CONFIG.image_size_px, rng.uniform(60, 200, 3))).clip(0, 255).astype(np.uint8), []


def learnable(split: str) -> Iterator[tuple[Any, list[SceneObject]]]:
    for number in itertools.count():
        image = draw_image(CONFIG, split, number)
        sizes = [max(box_of(item)["bbox"][2:]) for item in image[1]]
        if sizes and min(sizes) >= SMALLEST_PX and all(item.label in LABELS for item in image[1]):
            yield image


def write(folder: Path, split: str, images: list[tuple[Any, list[SceneObject]]]) -> None:
    (folder / "images" / split).mkdir(parents=True, exist_ok=True)
    rows, annotations = [], []
    for i, (pixels, objects) in enumerate(images, start=1):
        name = f"{split}/{i:06d}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        rows.append({"id": i, "file_name": name, "width": pixels.shape[1], "height": pixels.shape[0]})
        for item in objects:
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": i, "category_id": LABELS[item.label] + 1, **box_of(item)})
    categories = [{"id": i + 1, "name": list(SHAPES)[label]} for label, i in LABELS.items()]
    data = {"images": rows, "annotations": annotations, "categories": categories}
    (folder / f"{split}.json").write_text(json.dumps(data), encoding="utf-8")


def box_of(item: SceneObject) -> dict[str, Any]:
    rows, columns = np.flatnonzero(item.mask.any(1)), np.flatnonzero(item.mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    box_xywh = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
    return {"bbox": box_xywh, "area": int(item.mask.sum()), "iscrowd": 0}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
