"""COCO evaluation of 5,000 images with 100 detections each: this project's meter beside pycocotools, in one process.

    python experiments/scale/evaluation.py        # prints the figures, writes evaluation.json

Truth and detections are drawn, with COCO's number of classes and boxes an image, so that nothing but the evaluators
is measured. Seconds are those of the process, which other processes do not lengthen.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from autokd.training import PrecisionMeter

NUM_IMAGES, NUM_CLASSES, BOXES_AN_IMAGE, DETECTIONS_AN_IMAGE = 5_000, 80, 7.3, 100
RESULT = Path(__file__).with_name("evaluation.json")


def draw_truth(rng: np.random.Generator) -> COCO:
    """Draw boxes of about 55 px, 1% of them crowds."""
    annotations: list[dict[str, Any]] = []
    for image in range(1, NUM_IMAGES + 1):
        for _ in range(rng.poisson(BOXES_AN_IMAGE)):
            sides = np.exp(rng.normal(4, 1, 2)).clip(4, 400)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(1, NUM_CLASSES + 1)),
                    "bbox": [*rng.uniform(0, 500, 2).tolist(), *sides.tolist()],
                    "area": float(sides.prod()),
                    "iscrowd": int(rng.random() < 0.01),
                }
            )
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": image, "width": 640, "height": 640} for image in range(1, NUM_IMAGES + 1)],
        "annotations": annotations,
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, NUM_CLASSES + 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def draw_detections(rng: np.random.Generator, coco: COCO) -> list[dict[str, Any]]:
    """Draw two detections near every box, a fifth of another class, and false alarms up to 100 an image."""
    found = []
    for image in range(1, NUM_IMAGES + 1):
        near = [box for box in coco.imgToAnns[image] for _ in range(2)][:DETECTIONS_AN_IMAGE]
        for place in range(DETECTIONS_AN_IMAGE):
            category, box = int(rng.integers(1, NUM_CLASSES + 1)), [*rng.uniform(0, 500, 2), *rng.uniform(4, 200, 2)]
            if place < len(near):
                box = np.array(near[place]["bbox"]) * (1 + rng.normal(0, 0.08, 4))
                category = near[place]["category_id"] if rng.random() < 0.8 else category
            found.append(
                {
                    "image_id": image,
                    "category_id": category,
                    "bbox": [float(number) for number in box],
                    "score": float(rng.random()),
                }
            )
    return found


def seconds_of_pycocotools(coco: COCO, found: list[dict[str, Any]], num_areas: int) -> tuple[float, float]:
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes([dict(each) for each in found]), "bbox")
        evaluation.params.maxDets = [100]
        evaluation.params.areaRng = evaluation.params.areaRng[:num_areas]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:num_areas]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0]
    return time.process_time() - began, float(precision[precision > -1].mean())


def seconds_of_meter(meter: PrecisionMeter, found: list[dict[str, Any]], by_size: bool) -> tuple[float, float]:
    began = time.process_time()
    ap = meter.score(found, by_size=by_size).map_50_95
    return time.process_time() - began, ap


def main() -> None:
    rng = np.random.default_rng(0)
    coco = draw_truth(rng)
    found = draw_detections(rng, coco)
    ids = tuple(sorted(coco.cats))
    dataset = SimpleNamespace(
        classes=tuple(coco.cats[i]["name"] for i in ids),
        category_ids=ids,
        image_ids=tuple(sorted(coco.imgs)),
        num_images=NUM_IMAGES,
        ground_truth=lambda: coco,
    )
    meter = PrecisionMeter(dataset)  # type: ignore[arg-type]
    measured = {
        "ours, all sizes together": seconds_of_meter(meter, found, by_size=False),
        "ours, by size too": seconds_of_meter(meter, found, by_size=True),
        "pycocotools, all sizes together": seconds_of_pycocotools(coco, found, 1),
        "pycocotools, by size too": seconds_of_pycocotools(coco, found, 4),
    }
    base = measured["pycocotools, all sizes together"][0]
    rows = {name: {"seconds": round(s, 2), "ratio": round(s / base, 3), "ap": ap} for name, (s, ap) in measured.items()}
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")
    for name, row in rows.items():
        print(f"{name:34} {row['seconds']:7.2f} s  {row['ratio']:.2f}  AP {row['ap']:.12f}")


if __name__ == "__main__":
    main()
