"""A student for plain MMDetection: its config and its checkpoint, which do not need AutoKD."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    original_sizes: Iterable[tuple[int, int]] = (),
    has_two_frames: bool = False,
) -> tuple[Path, Path]:
    """Write ``student.py`` and ``student.pth`` for ``mmdet.apis.init_detector(config, checkpoint)``; return both paths.

    The config is the user's with its classes and a test pipeline that scales and pads images as AutoKD does, so that
    ``inference_detector`` finds the same boxes; training parts stay as the user wrote them.

    Args:
        detector: the student, with its trained weights.
        section: its configuration.
        classes: the data set's names.
        image_size_px: (height, width) into which the data were scaled.
        folder: where the files go; made if it is absent.
        pad_rgb: color of the padding beside an image, 0 to 255.
        original_sizes: (height, width) of the images that the student is for. If all lie as the frame does, upright or
            across, boxes come back without a rounding.
        has_two_frames: whether images that lie across the frame have it turned.
    """
    import torch

    names = detector.model_classes or tuple(classes)
    config = resolve_config(section, len(names))
    config.model.data_preprocessor.pad_size_divisor = detector.pad_multiple_px
    if has_two_frames:
        pipeline = two_frames_pipeline(image_size_px, pad_rgb, detector.pad_multiple_px)
    else:
        pipeline = scaling_pipeline(image_size_px, pad_rgb, _lie_alike(image_size_px, original_sizes))
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


def scaling_pipeline(
    image_size_px: tuple[int, int], pad_rgb: tuple[int, int, int], lie_alike: bool = False
) -> list[dict[str, Any]]:
    """Return a test pipeline that scales by Pillow's filter and pads right and below, as ``autokd.data`` does.

    Args:
        image_size_px: (height, width) of the frame.
        pad_rgb: color of the padding, 0 to 255.
        lie_alike: whether no image is upright in a frame that lies across, nor the other way round. mmdet's ``Resize``
            then fits images into the frame and keeps the scales of both axes. ``FixShapeResize`` fits any image, but
            keeps one scale for both axes, so that boxes come back with up to a pixel of rounding.
    """
    height, width = image_size_px
    pad_val = {"img": tuple(reversed(pad_rgb)), "seg": 255}
    fit: list[dict[str, Any]] = [
        {"type": "Resize", "scale": (width, height), "keep_ratio": True, "backend": "pillow"},
        {"type": "Pad", "size": (width, height), "pad_val": pad_val},
    ]
    if not lie_alike:
        fit = [{"type": "FixShapeResize", "width": width, "height": height, "keep_ratio": True, "backend": "pillow"}]
        fit[0]["pad_val"] = pad_val
    return _pipeline(fit)


def two_frames_pipeline(
    image_size_px: tuple[int, int], pad_rgb: tuple[int, int, int], multiple_px: int
) -> list[dict[str, Any]]:
    """Return a test pipeline that scales each image into the frame that lies as it does.

    Pads of mmdet have one size for all images, so these are padded to a multiple alone, and a border of padding less
    than in AutoKD's frame is seen.

    Args:
        image_size_px: (height, width) of the frame; images that lie across it have it turned.
        pad_rgb: color of the padding, 0 to 255.
        multiple_px: sides are padded to multiples of this.
    """
    scale = (max(image_size_px), min(image_size_px))  # the longest side, the shorter side, of either orientation
    pad = {"type": "Pad", "size_divisor": multiple_px, "pad_val": {"img": tuple(reversed(pad_rgb)), "seg": 255}}
    return _pipeline([{"type": "Resize", "scale": scale, "keep_ratio": True, "backend": "pillow"}, pad])


def _pipeline(fit: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"type": "LoadImageFromFile", "imdecode_backend": "pillow"},
        *fit,
        {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
    ]


def _lie_alike(frame: tuple[int, int], sizes: Iterable[tuple[int, int]]) -> bool:
    """Whether all images lie as the frame does, upright or across; False if there is none."""
    turns = [(height - width) * (frame[0] - frame[1]) for height, width in sizes]
    return bool(turns) and min(turns) >= 0


def _set_data(config: Any, loader: str, names: Sequence[str], pipeline: list[dict[str, Any]]) -> None:
    """Set pipeline and classes of a loader's outer data set; a config without one gets the least that mmdet needs."""
    if not config.get(loader):
        config[loader] = {"dataset": {"type": "CocoDataset"}}
    dataset = config[loader]["dataset"]
    dataset["pipeline"] = pipeline
    dataset["metainfo"] = {"classes": tuple(names)}
