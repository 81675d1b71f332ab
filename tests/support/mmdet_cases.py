"""The architectures of the conformance suite, each with a small config of its own under ``configs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autokd.config import MmdetDetector

CONFIGS = Path(__file__).parents[1] / "detectors" / "mmdet" / "configs"
NUM_CLASSES = 5
DENSE = ("retinanet", "fcos", "atss", "gfl", "tood", "rtmdet", "yolox", "reppoints")
TWO_STAGE = ("faster_rcnn", "cascade_rcnn", "mask_rcnn")
QUERY = ("detr", "deformable_detr", "dino")
ARCHITECTURES = (*DENSE, *TWO_STAGE, *QUERY)

STRIDES = (
    dict.fromkeys(DENSE, (8, 16, 32, 64, 128))
    | dict.fromkeys(("rtmdet", "yolox"), (8, 16, 32))
    | dict.fromkeys(TWO_STAGE, (4, 8, 16, 32, 64))
    | {"detr": (32,), "deformable_detr": (8, 16, 32, 64), "dino": (8, 16, 32, 64)}
)
NUM_QUERIES = 20


def section(name: str, **settings: Any) -> MmdetDetector:
    return MmdetDetector(framework="mmdet", config=str(CONFIGS / f"{name}.py"), **settings)
