"""The train pipeline of the student's config, run by MMDetection's own transforms and replayed by seed, epoch, image.

Each image is made after NumPy's, Python's and torch's global generators were seeded from (seed, epoch, index), which
are put back afterwards: MMDetection's transforms draw from these. So only transforms that keep nothing from one image
to the next are taken, by name, from mmdet's and mmcv's registries.

Legend: h x w pixels of an image, BGR as mmcv reads it.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from autokd.config import MmdetDetector
from autokd.detectors.mmdet.config_file import find_config, read_config
from autokd.detectors.mmdet.library import PROGRAM_ERRORS
from autokd.detectors.mmdet.schedule import type_name
from autokd.detectors.train_pipeline import AugmentedImage, ImageSource
from autokd.errors import ConfigError, DataError
from autokd.files import text_digest

_STREAM = 301
_MOST_OTHERS, _MOST_TRIES = 1000, 15
"""Other images and repetitions that are tried where a transform refuses an image: those of mmengine and mmdet."""
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


def read_train_pipeline(section: MmdetDetector, num_epochs: int) -> MmdetTrainPipeline:
    """Return the train pipeline of a section's config. Reading the config runs it.

    Args:
        section: the configuration.
        num_epochs: epochs of the training, from whose end hooks count.

    Raises:
        ConfigError: if there is none, or a part of it cannot be replayed, with the remedy.
    """
    config = read_config(section)
    where = str(find_config(section.config))
    inner, outer = _pipelines((config.get("train_dataloader") or {}).get("dataset"), where)
    stages = [_Stage(0, _steps(inner, where), _steps(outer, where))]
    described: list[Any] = [inner, outer]
    for hook in config.get("custom_hooks") or []:
        if type_name(hook) == "PipelineSwitchHook":
            if outer:
                raise _refused(where, "PipelineSwitchHook", "it replaces the pipeline of a plain data set alone")
            # mmengine counts epochs from 0.
            switched = hook["switch_pipeline"]
            stages.append(_Stage(int(hook["switch_epoch"]) + 1, _steps(switched, where), []))
            described.append([stages[-1].first_epoch, switched])
        elif type_name(hook) == "YOLOXModeSwitchHook":
            first = num_epochs - int(hook.get("num_last_epochs", 15))
            skipped = set(hook.get("skip_type_keys", ("Mosaic", "RandomAffine", "MixUp")))
            last = stages[-1]
            stages.append(_Stage(first, last.inner, [step for step in last.outer if step[0] not in skipped]))
            described.append([first, sorted(skipped)])
    return MmdetTrainPipeline(tuple(stages), text_digest(json.dumps(described, sort_keys=True, default=str)))


@dataclass(frozen=True, eq=False)
class _Stage:
    """Transforms from an epoch on: of the data set, then of the wrapper that mixes its images (none without one)."""

    first_epoch: int
    inner: list[Step]
    outer: list[Step]


@dataclass(frozen=True, eq=False)
class MmdetTrainPipeline:
    """A ``TrainPipeline`` of MMDetection's transforms."""

    stages: tuple[_Stage, ...]
    digest: str

    def __call__(self, images: ImageSource, index: int, epoch: int, seed: int) -> AugmentedImage:
        """See ``TrainPipeline``.

        Raises:
            DataError: if the transforms refuse all images, or fail.
        """
        stage = [stage for stage in self.stages if stage.first_epoch <= max(epoch, 0)][-1]
        with seeded(random_seeds(seed, epoch, index)):
            results = _Sampler(images, stage).sample(index)
        return _as_image(results)


def random_seeds(seed: int, epoch: int, index: int) -> tuple[int, int, int]:
    """Return the seeds of NumPy's, Python's and torch's generators for one image."""
    state = np.random.SeedSequence([seed, _STREAM, epoch, index]).generate_state(3)
    return int(state[0]), int(state[1]), int(state[2])


@contextmanager
def seeded(seeds: tuple[int, int, int]) -> Iterator[None]:
    """Seed NumPy's, Python's and torch's global generators, and put them back as they were."""
    before = np.random.get_state(), random.getstate(), torch.get_rng_state()
    try:
        np.random.seed(seeds[0])
        random.seed(seeds[1])
        torch.manual_seed(seeds[2])
        yield
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])
        torch.set_rng_state(before[2])


class _Sampler:
    """Draws one image, as mmengine's ``BaseDataset`` and mmdet's ``MultiImageMixDataset`` do."""

    def __init__(self, images: ImageSource, stage: _Stage) -> None:
        self._images = images
        self._stage = stage

    def __len__(self) -> int:
        return len(self._images)

    def sample(self, index: int) -> dict[str, Any]:
        results = self[index]
        for name, transform in self._stage.outer:
            results = self._mixed(results, name, transform)
        return results

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return an image after the data set's own transforms; another one if they refuse it."""
        for _ in range(_MOST_OTHERS + 1):
            # mmdet draws from 0 to the number of images, which is one too many.
            results: dict[str, Any] | None = _data_info(self._images, index % len(self._images))
            for name, transform in self._stage.inner:
                results = _applied(name, transform, results)
                if results is None:
                    break
            if results is not None:
                return results
            index = int(np.random.randint(0, len(self._images)))
        raise DataError(
            f"the student's train pipeline refuses every image that was tried ({_MOST_OTHERS} of them). Do its crops "
            "and filters leave any object? Correct the config, or set 'full: {pipeline: views}'."
        )

    def _mixed(self, results: dict[str, Any], name: str, transform: Any) -> dict[str, Any]:
        if hasattr(transform, "get_indexes"):
            indices = transform.get_indexes(self)
            indices = indices if isinstance(indices, Sequence) else [indices]
            results["mix_results"] = [copy.deepcopy(self[int(index)]) for index in indices]
        for _ in range(_MOST_TRIES):
            found = _applied(name, transform, copy.deepcopy(results))
            if found is not None:
                found.pop("mix_results", None)
                return found
        raise DataError(
            f"the transform {name} of the student's train pipeline refuses an image {_MOST_TRIES} times in a row. "
            "Correct the config, or set 'full: {pipeline: views}'."
        )


def _applied(name: str, transform: Any, results: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] | None = transform(results)
    except PROGRAM_ERRORS as error:
        raise DataError(
            f"the transform {name} of the student's train pipeline failed with {type(error).__name__}: {error}. "
            "Correct the config, or set 'full: {pipeline: views}'."
        ) from error
    return found


def _data_info(images: ImageSource, index: int) -> dict[str, Any]:
    """Return what mmdet's ``CocoDataset`` gives its pipeline of an image, and where its pixels are read."""
    image = images[index]
    height, width = image.size_px
    return {
        "img_path": image.path,
        "img_id": image.image_id,
        "seg_map_path": None,
        "height": height,
        "width": width,
        "sample_idx": index,
        "instances": [
            {"bbox": box, "bbox_label": label, "ignore_flag": 0}
            for box, label in zip(image.boxes_xyxy_px.tolist(), image.labels.tolist(), strict=True)
        ],
        _PIXELS: image.read,
    }


_PIXELS = "autokd_read"


class _FrameLoader:
    """Loads an image as AutoKD's data sets do: in the frame of its boxes, whatever rotation or depth its file has."""

    def __init__(self, to_float32: bool) -> None:
        self._to_float32 = to_float32

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        rgb_chw = results.pop(_PIXELS)()
        bgr_hwc = np.ascontiguousarray(rgb_chw[::-1].transpose(1, 2, 0))
        results["img"] = bgr_hwc.astype(np.float32) if self._to_float32 else bgr_hwc
        results["img_shape"] = results["ori_shape"] = bgr_hwc.shape[:2]
        return results


def _as_image(results: Mapping[str, Any]) -> AugmentedImage:
    bgr_chw, instances = results["inputs"], results["data_samples"].gt_instances
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes).float().reshape(-1, 4)
    is_whole = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    pixels_chw = bgr_chw.flip(0)
    if pixels_chw.dtype != torch.uint8:
        pixels_chw = pixels_chw.float()
    return AugmentedImage(pixels_chw, boxes[is_whole], instances.labels.long()[is_whole])


def _pipelines(dataset: Any, where: str) -> tuple[list[Any], list[Any]]:
    """Return the pipelines of a data set and of the ``MultiImageMixDataset`` around it, if there is one."""
    outer: list[Any] = []
    while isinstance(dataset, Mapping) and (name := type_name(dataset)) in ("MultiImageMixDataset", "RepeatDataset"):
        if name == "MultiImageMixDataset":
            if outer:
                raise _refused(where, name, "it stands inside another one. Keep one of them")
            outer = list(dataset.get("pipeline") or [])
        dataset = dataset.get("dataset")
    if isinstance(dataset, Mapping) and type_name(dataset) in _WRAPPERS:
        raise _refused(where, type_name(dataset), _WRAPPERS[type_name(dataset)])
    inner = list(dataset.get("pipeline") or []) if isinstance(dataset, Mapping) else []
    if not any(type_name(part) == _LOADS for part in inner):
        raise ConfigError(
            f"full.pipeline: {where}: train_dataloader.dataset has no pipeline that begins with {_LOADS}. Name a "
            "config that trains, or set 'full: {pipeline: views}'."
        )
    last = (outer or inner)[-1]
    if type_name(last) != "PackDetInputs":
        raise _refused(where, type_name(last), "the last transform has to be PackDetInputs")
    return inner, outer


def _steps(pipeline: Sequence[Any], where: str) -> list[Step]:
    return [(type_name(part), _built(part, where)) for part in pipeline]


def _built(part: Any, where: str) -> Any:
    from mmdet.registry import TRANSFORMS

    _check(part, where)
    name, settings = type_name(part), dict(part)
    if name == _LOADS:
        if settings.get("color_type", "color") not in ("color", "color_ignore_orientation"):
            raise _refused(
                where, name, f"images have three channels here, and color_type is {settings['color_type']!r}"
            )
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
            raise _refused(where, name, _REMEDIES.get(name, allowed))
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
        raise _refused(where, name, f"it comes from {module or 'nowhere'}, and only mmdet's and mmcv's own are run")


def _refused(where: str, name: str, why: str) -> ConfigError:
    return ConfigError(
        f"full.pipeline: {where}: {name} cannot be a part of the train pipeline of AutoKD's loop: {why}. Or set 'full: "
        "{pipeline: views}'; 'DistilledDetector' trains by any pipeline (docs/mmdetection.md)."
    )
