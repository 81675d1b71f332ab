"""A student for plain MMDetection: its config and its checkpoint, which need AutoKD no more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autokd.config import MmdetDetector
from autokd.detectors.mmdet.adapter import MmdetAdapter
from autokd.detectors.mmdet.config_file import resolve_config

CONFIG_FILE = "student.py"
CHECKPOINT_FILE = "student.pth"


def export_student(
    detector: MmdetAdapter,
    section: MmdetDetector,
    classes: Sequence[str],
    image_size_px: tuple[int, int],
    folder: Path,
    *,
    pad_rgb: tuple[int, int, int] = (0, 0, 0),
) -> tuple[Path, Path]:
    """Write ``student.py`` and ``student.pth`` for ``mmdet.apis.init_detector(config, checkpoint)``; return both paths.

    classes: the data set's names. image_size_px: (height, width) that the data were scaled into. pad_rgb: colour beside
    them. The config is the user's with its classes and a test pipeline that scales and pads images as AutoKD does, so
    that ``inference_detector`` finds the same boxes; training parts stay as the user wrote them.
    """
    import torch

    names = detector.model_classes or tuple(classes)
    config = resolve_config(section, len(names))
    config.model.data_preprocessor.pad_size_divisor = detector.pad_multiple_px
    pipeline = scaling_pipeline(image_size_px, pad_rgb)
    for loader in ("val_dataloader", "test_dataloader"):
        if loader == "test_dataloader" or config.get(loader):
            _set_data(config, loader, names, pipeline)
    config.test_pipeline = pipeline
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / CONFIG_FILE, folder / CHECKPOINT_FILE
    config.dump(str(paths[0]))
    meta = {"dataset_meta": {"classes": names, "palette": "random"}}
    torch.save({"meta": meta, "state_dict": detector.plain_state_dict()}, paths[1])
    return paths


def scaling_pipeline(image_size_px: tuple[int, int], pad_rgb: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Images as ``autokd.data`` gives them: scaled by Pillow's antialiased filter, padded right and below."""
    height, width = image_size_px
    resize = {"type": "FixShapeResize", "width": width, "height": height, "keep_ratio": True, "backend": "pillow"}
    return [
        {"type": "LoadImageFromFile", "imdecode_backend": "pillow"},
        resize | {"pad_val": {"img": tuple(reversed(pad_rgb)), "seg": 255}},
        {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
    ]


def _set_data(config: Any, loader: str, names: Sequence[str], pipeline: list[dict[str, Any]]) -> None:
    """Wrapped data sets (repeated, joined) keep their own; a config without any gets the least that mmdet asks for."""
    if not config.get(loader):
        config[loader] = {"dataset": {"type": "CocoDataset"}}
    dataset = config[loader]["dataset"]
    dataset["pipeline"] = pipeline
    dataset["metainfo"] = {"classes": tuple(names)}
