"""``pictures.json``: test images with everybody's boxes, which a page draws when it is looked at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autokd.files import write_text_atomically
from autokd.report.pictures import Boxes, ComparisonImage, match

PICTURES_NAME = "pictures.json"
_SCHEMA = 1
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def save_pictures(run_dir: Path, images: Sequence[ComparisonImage], score_threshold: float) -> None:
    """Write images and boxes into a run directory.

    Args:
        run_dir: run directory.
        images: test images, whose ``image`` is a path.
        score_threshold: least score of a detection that is kept, in [0, 1].
    """
    data = {
        "schema": _SCHEMA,
        "score_threshold": score_threshold,
        "images": [_to_data(image, score_threshold) for image in images],
    }
    write_text_atomically(run_dir / PICTURES_NAME, json.dumps(data, allow_nan=False) + "\n")


def load_pictures(run_dir: Path) -> tuple[list[ComparisonImage], float]:
    """Return images and boxes of a run directory, and the least score of a detection; none if it has no such file.

    Args:
        run_dir: run directory.
    """
    try:
        data = json.loads((run_dir / PICTURES_NAME).read_text(encoding="utf-8"))
        return [_from_data(each) for each in data["images"]], float(data["score_threshold"])
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        return [], 0.0


def difference(image: ComparisonImage, one: str, other: str) -> int:
    """Return by how many right, false and missed boxes two detectors differ on an image.

    Args:
        image: the image.
        one: name of a detector.
        other: name of another.
    """
    counts = []
    for name in (one, other):
        found = image.detections.get(name, Boxes([], [], []))
        matched = match(found, image.truth)
        counts.append((matched.num_right, len(found.labels) - matched.num_right))
    return abs(counts[0][0] - counts[1][0]) + abs(counts[0][1] - counts[1][1])


def _to_data(image: ComparisonImage, score_threshold: float) -> dict[str, Any]:
    return {
        "image": str(image.image),
        "caption": image.caption,
        "size_px": image.size_px,
        "classes": image.classes,
        "truth": _boxes_data(image.truth),
        "detections": {name: _boxes_data(boxes.above(score_threshold)) for name, boxes in image.detections.items()},
    }


def _boxes_data(boxes: Boxes) -> dict[str, Any]:
    corners = [[round(float(x), 1) for x in box] for box in boxes.boxes_xyxy_px]
    return {"boxes": corners, "labels": list(boxes.labels), "scores": [round(float(s), 3) for s in boxes.scores]}


def _from_data(data: dict[str, Any]) -> ComparisonImage:
    path = Path(data["image"])
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError("only images are opened")
    return ComparisonImage(
        image=path,
        truth=_boxes_from(data["truth"]),
        detections={str(name): _boxes_from(boxes) for name, boxes in data["detections"].items()},
        classes=tuple(map(str, data["classes"])),
        caption=str(data["caption"]),
        size_px=None if data["size_px"] is None else (int(data["size_px"][0]), int(data["size_px"][1])),
    )


def _boxes_from(data: dict[str, Any]) -> Boxes:
    return Boxes(data["boxes"], data["labels"], data["scores"])
