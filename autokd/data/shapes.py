"""The generated set ``shapes``, written as a COCO set: PNG images and ``instances_{train,val,test}.json``.

Boxes enclose the **visible** pixels, as COCO's do. An image depends on (seed, split, number) alone, so that a larger
set begins with the images of a smaller one. The folder is named by a digest of the settings. It is written under a
temporary name and renamed when it is complete, so that several processes may ask for it at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autokd.config import ShapesData
from autokd.data.scene import SHAPES, SceneObject, draw_scene
from autokd.files import atomic_folder, make_private_folder, text_digest

GENERATOR_VERSION = 1
"""Version of the generator; raised when the same settings give other images."""
SPLITS = ("train", "val", "test")


def shapes_digest(config: ShapesData) -> str:
    """Return 16 hexadecimal digits of the settings and the generator's version.

    Args:
        config: settings of the set.
    """
    settings = json.dumps([GENERATOR_VERSION, config.model_dump(mode="json")], sort_keys=True)
    return text_digest(settings)


def write_shapes(config: ShapesData, cache_dir: Path) -> Path:
    """Generate the set if it is not there yet.

    Args:
        config: settings of the set.
        cache_dir: folder of all generated sets.

    Returns:
        Folder of this set.
    """
    folder = cache_dir / "shapes" / shapes_digest(config)
    if not folder.is_dir():
        make_private_folder(cache_dir)
        with atomic_folder(folder) as writing:
            for split in SPLITS:
                _write_split(config, split, writing)
    return folder


def draw_image(config: ShapesData, split: str, number: int) -> tuple[Any, list[SceneObject]]:
    """Draw one image.

    Args:
        config: settings of the set.
        split: "train", "val" or "test".
        number: number of the image in its split, from 0.

    Returns:
        Pixels of shape (H, W, 3), uint8, and the objects.
    """
    # PCG64 by name: NumPy may change the generator behind ``default_rng``.
    rng = np.random.Generator(np.random.PCG64([config.seed, SPLITS.index(split), number]))
    return draw_scene(rng, config.image_size_px)


def _write_split(config: ShapesData, split: str, folder: Path) -> None:
    images_dir = folder / "images" / split
    images_dir.mkdir(parents=True)
    height, width = config.image_size_px
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range({"train": config.num_train, "val": config.num_val, "test": config.num_test}[split]):
        pixels, objects = draw_image(config, split, number)
        name = f"{split}/{number + 1:06d}.png"
        Image.fromarray(pixels).save(folder / "images" / name, compress_level=1)
        images.append({"id": number + 1, "file_name": name, "width": width, "height": height})
        for item in objects:
            annotations.append({"id": len(annotations) + 1, "image_id": number + 1, **_annotation(item)})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(SHAPES)]
    info = {"description": "AutoKD's generated shapes", "version": str(GENERATOR_VERSION)}
    data = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    (folder / f"instances_{split}.json").write_text(json.dumps(data), encoding="utf-8")


def _annotation(item: SceneObject) -> dict[str, Any]:
    rows, columns = np.flatnonzero(item.mask.any(axis=1)), np.flatnonzero(item.mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    box_xywh = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
    return {"category_id": item.label + 1, "bbox": box_xywh, "area": int(item.mask.sum()), "iscrowd": 0}
