"""The transforms of a config's train pipeline: looked up, checked that they can be replayed, and built."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autokd.detectors.mmdet.library import PROGRAM_ERRORS
from autokd.detectors.mmdet.schedule import type_name
from autokd.errors import ConfigError

_LOADS, _BOXES = "LoadImageFromFile", "LoadAnnotations"
_COLORS = (
    "ColorTransform Color Brightness Contrast Sharpness Solarize SolarizeAdd Posterize Equalize AutoContrast Invert"
)
_MOVES = "ShearX ShearY Rotate TranslateX TranslateY"
_ONE_IMAGE = (
    "Resize FixScaleResize FixShapeResize ResizeShortestEdge RandomResize RandomChoiceResize RandomFlip RandomShift "
    "Pad RandomCrop CenterCrop MinIoURandomCrop RandomCenterCropPad Expand PhotoMetricDistortion YOLOXHSVRandomAug "
    "CutOut RandomErasing RandomAffine RandomGrayscale FilterAnnotations PackDetInputs"
)
_OTHERS_TOO = "Mosaic MixUp"
_NESTED = "Compose RandomChoice RandomApply RandomOrder AutoAugment RandAugment"
REPLAYABLE = frozenset(f"{_LOADS} {_BOXES} {_COLORS} {_MOVES} {_ONE_IMAGE} {_OTHERS_TOO} {_NESTED}".split())
"""Transforms that draw from the global generators alone, and keep nothing between images."""

_CACHED = (
    "it mixes in images that it has seen before, so that a resumed training would differ. Write {} into the outer "
)
_CACHED += "pipeline of a MultiImageMixDataset, as MMDetection's yolox configs do"
_REMEDIES = {
    "CachedMosaic": _CACHED.format("Mosaic"),
    "CachedMixUp": _CACHED.format("MixUp"),
    "Albu": "albumentations draws from generators of its own. Take MMDetection's transforms of the same kind",
    "CopyPaste": "it needs masks, and data sets here have boxes alone. Leave it out",
    "InstaBoost": "it needs masks, and data sets here have boxes alone. Leave it out",
    "Normalize": "the model's data_preprocessor normalizes. Leave it out",
}
_WRAPPERS = {
    "ConcatDataset": "the images are those of 'data'. Name one data set, with the pipeline",
    "ClassBalancedDataset": "every image comes once in an epoch here. Take the data set out of it",
}
Step = tuple[str, Callable[[dict[str, Any]], dict[str, Any] | None]]
"""Name of a transform, and the transform."""

PIXELS = "autokd_read"
"""Key of a function that reads an image's pixels, (3, h, w) uint8 RGB."""


class _FrameLoader:
    """Loads an image as AutoKD's data sets do: in the frame of its boxes, whatever rotation or depth its file has."""

    def __init__(self, to_float32: bool) -> None:
        self._to_float32 = to_float32

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        rgb_chw = results.pop(PIXELS)()
        bgr_hwc = np.ascontiguousarray(rgb_chw[::-1].transpose(1, 2, 0))
        results["img"] = bgr_hwc.astype(np.float32) if self._to_float32 else bgr_hwc
        results["img_shape"] = results["ori_shape"] = bgr_hwc.shape[:2]
        return results


def pipelines_of(dataset: Any, where: str) -> tuple[list[Any], list[Any]]:
    """Return the pipelines of a data set and of the ``MultiImageMixDataset`` around it, if there is one."""
    outer: list[Any] = []
    while isinstance(dataset, Mapping) and (name := type_name(dataset)) in ("MultiImageMixDataset", "RepeatDataset"):
        if name == "MultiImageMixDataset":
            if outer:
                raise refused(where, name, "it stands inside another one. Keep one of them")
            outer = list(dataset.get("pipeline") or [])
        dataset = dataset.get("dataset")
    if isinstance(dataset, Mapping) and type_name(dataset) in _WRAPPERS:
        raise refused(where, type_name(dataset), _WRAPPERS[type_name(dataset)])
    inner = list(dataset.get("pipeline") or []) if isinstance(dataset, Mapping) else []
    if not any(type_name(part) == _LOADS for part in inner):
        raise ConfigError(
            f"full.pipeline: {where}: train_dataloader.dataset has no pipeline that begins with {_LOADS}. Name a "
            "config that trains, or set 'full: {pipeline: views}'."
        )
    last = (outer or inner)[-1]
    if type_name(last) != "PackDetInputs":
        raise refused(where, type_name(last), "the last transform has to be PackDetInputs")
    return inner, outer


def built_steps(pipeline: Sequence[Any], where: str) -> list[Step]:
    return [(type_name(part), _built(part, where)) for part in pipeline]


def _built(part: Any, where: str) -> Any:
    from mmdet.registry import TRANSFORMS

    _check(part, where)
    name, settings = type_name(part), dict(part)
    if name == _LOADS:
        if settings.get("color_type", "color") not in ("color", "color_ignore_orientation"):
            raise refused(where, name, f"images have three channels here, and color_type is {settings['color_type']!r}")
        return _FrameLoader(bool(settings.get("to_float32", False)))
    if name == _BOXES:
        settings |= {"with_mask": False, "with_seg": False}
        settings.pop("poly2mask", None)
    try:
        return TRANSFORMS.build(copy.deepcopy(settings))
    except PROGRAM_ERRORS as error:
        raise ConfigError(
            f"full.pipeline: {where}: the transform {name} cannot be built ({type(error).__name__}: {error}). "
            "Correct it."
        ) from error


def _check(part: Any, where: str) -> None:
    """Refuse a transform that cannot be replayed, and those inside it.

    Raises:
        ConfigError: with the remedy.
    """
    if isinstance(part, Mapping) and "type" in part:
        name = type_name(part)
        if name not in REPLAYABLE:
            allowed = "it is not known to be replayable. Leave it out, or take one of " + ", ".join(sorted(REPLAYABLE))
            raise refused(where, name, _REMEDIES.get(name, allowed))
        _require_library(name, where)
    inside = part.values() if isinstance(part, Mapping) else part if isinstance(part, (list, tuple)) else ()
    for each in inside:
        _check(each, where)


def _require_library(name: str, where: str) -> None:
    import mmdet.datasets.transforms  # noqa: F401 - registers them
    from mmdet.registry import TRANSFORMS

    found = TRANSFORMS.get(name)
    module = getattr(found, "__module__", "")
    if module.split(".")[0] not in ("mmdet", "mmcv"):
        raise refused(where, name, f"it comes from {module or 'nowhere'}, and only mmdet's and mmcv's own are run")


def refused(where: str, name: str, why: str) -> ConfigError:
    return ConfigError(
        f"full.pipeline: {where}: {name} cannot be a part of the train pipeline of AutoKD's loop: {why}. Or set 'full: "
        "{pipeline: views}'; 'DistilledDetector' trains by any pipeline (docs/mmdetection.md)."
    )
