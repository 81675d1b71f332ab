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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from autokd.config import MmdetDetector
from autokd.detectors.mmdet.config_file import find_config, read_config
from autokd.detectors.mmdet.library import PROGRAM_ERRORS
from autokd.detectors.mmdet.pipeline_steps import PIXELS, Step, built_steps, pipelines_of, refused
from autokd.detectors.mmdet.schedule import type_name
from autokd.detectors.train_pipeline import AugmentedImage, ImageSource
from autokd.errors import DataError
from autokd.files import text_digest

_STREAM = 301
_MOST_OTHERS, _MOST_TRIES = 1000, 15
"""Other images and repetitions that are tried where a transform refuses an image: those of mmengine and mmdet."""


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
    inner, outer = pipelines_of((config.get("train_dataloader") or {}).get("dataset"), where)
    stages = [_Stage(0, built_steps(inner, where), built_steps(outer, where))]
    described: list[Any] = [inner, outer]
    for hook in config.get("custom_hooks") or []:
        if type_name(hook) == "PipelineSwitchHook":
            if outer:
                raise refused(where, "PipelineSwitchHook", "it replaces the pipeline of a plain data set alone")
            # mmengine counts epochs from 0.
            switched = hook["switch_pipeline"]
            stages.append(_Stage(int(hook["switch_epoch"]) + 1, built_steps(switched, where), []))
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
        PIXELS: image.read,
    }


def _as_image(results: Mapping[str, Any]) -> AugmentedImage:
    bgr_chw, instances = results["inputs"], results["data_samples"].gt_instances
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes).float().reshape(-1, 4)
    is_whole = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    pixels_chw = bgr_chw.flip(0)
    if pixels_chw.dtype != torch.uint8:
        pixels_chw = pixels_chw.float()
    return AugmentedImage(pixels_chw, boxes[is_whole], instances.labels.long()[is_whole])
