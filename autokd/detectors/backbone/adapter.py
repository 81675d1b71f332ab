"""A backbone behind the detector's contract: maps, and neither losses nor detections.

Legend: B images, C channels, H x W pixels or cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autokd.detector_outputs import DetectorOutputs
from autokd.detectors.contract import Detections, Detector, Target, evaluating
from autokd.detectors.level_names import level_names
from autokd.errors import DetectorError
from autokd.tensors import full_precision

_USUAL_STRIDE = 16
"""Stride to which cells of patches are brought whose side is no power of two."""
MapsOf = Callable[[Any, Tensor], Sequence[Tensor]]
"""(model, normalized images (B, 3, H, W)) -> maps, fine to coarse."""


class BackboneAdapter(Detector):
    """A feature extractor as a teacher.

    Images are normalized, padded right and below with zeros, and resized by one factor, so that the strides in pixels
    of the network's input are whole numbers.

    Args:
        model: the backbone.
        maps_of: runs it.
        architecture: its name in errors.
        num_classes: classes of the data set.
        statistics: mean and standard deviation of the colors in [0, 1].
        patch_px: pixels, of the model's own input, of which both sides must be multiples.
        data_size_px: (height, width) of the network's input.
        own_size_px: (height, width) to which it is resized for the model; None: see ``_factor``.

    Raises:
        DetectorError: if ``own_size_px`` gives no whole strides.
    """

    def __init__(
        self,
        model: nn.Module,
        maps_of: MapsOf,
        architecture: str,
        num_classes: int,
        statistics: tuple[Sequence[float], Sequence[float]],
        patch_px: int,
        data_size_px: tuple[int, int],
        own_size_px: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.model, self._maps_of = model, maps_of
        self.architecture, self.num_classes = architecture, num_classes
        self._statistics = statistics
        self._patch_px = patch_px
        own_strides, self._channels = self._probe()
        self._coarsest = _stride_of_patch(patch_px, data_size_px, own_size_px, architecture)
        strides = [stride * self._coarsest / patch_px for stride in own_strides]
        if not all(stride.is_integer() for stride in strides):
            raise DetectorError(
                f"{architecture}: image_size_px {list(own_size_px or data_size_px)} gives cells of {strides} pixels of "
                "the data. Give a size that is a whole multiple of data.image_size_px, or the same size."
            )
        self._strides = level_names([int(stride) for stride in strides])

    @property
    def strides(self) -> dict[str, int]:
        return dict(self._strides)

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def pad_multiple_px(self) -> int:
        return self._coarsest

    @property
    def body(self) -> nn.Module:
        return self.model

    def detect(self, images_BCHW: Tensor) -> list[Detections]:
        """Refuse.

        Raises:
            DetectorError: always; a backbone finds no objects.
        """
        raise DetectorError(f"{self.architecture} is a backbone alone and finds no objects, so that it has no AP.")

    def _choose_memory_format(self) -> None:
        """Leave maps as they are: the model is read once an image, and some call ``view``."""

    def _run(
        self, images_BCHW: Tensor, targets: Sequence[Target] | None, taps: Sequence[str], wants_detections: bool
    ) -> tuple[DetectorOutputs, list[Detections]]:
        self._check_images(images_BCHW)
        self._check_taps(taps)
        if targets is not None:
            raise DetectorError(f"{self.architecture} is a backbone alone and has no losses. Run it without targets.")
        if wants_detections:
            self.detect(images_BCHW)
        pixels_BCHW, input_size_px = self._pixels(images_BCHW)
        maps = [full_precision(map_BCHW) for map_BCHW in self._maps_of(self.model, pixels_BCHW)]
        pyramid = dict(zip(self._strides, maps))
        return DetectorOutputs(pyramid=pyramid, strides=self.strides, image_size_px=input_size_px), []

    def _pixels(self, images_BCHW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the model's own input, and (height, width) of the padded input of the network."""
        mean, std = (images_BCHW.new_tensor(list(values))[:, None, None] for values in self._statistics)
        height, width = images_BCHW.shape[-2:]
        padding = (0, -width % self._coarsest, 0, -height % self._coarsest)
        padded_BCHW = F.pad((images_BCHW - mean) / std, padding)
        size = (padded_BCHW.shape[-2], padded_BCHW.shape[-1])
        if self._coarsest == self._patch_px:
            return padded_BCHW, size
        own = [side // self._coarsest * self._patch_px for side in size]
        return F.interpolate(padded_BCHW, own, mode="bilinear", align_corners=False, antialias=True), size

    def _probe(self) -> tuple[list[int], int]:
        """Return the strides in pixels of the model's own input, and the finest map's channels."""
        side = 4 * self._patch_px
        with torch.no_grad(), evaluating(self):
            maps = self._maps_of(self.model, torch.zeros(1, 3, side, side))
        return [side // map_BCHW.shape[-1] for map_BCHW in maps], maps[0].shape[1]


def _stride_of_patch(
    patch_px: int, data_size_px: tuple[int, int], own_size_px: tuple[int, int] | None, architecture: str
) -> int:
    """Return the pixels of the data that one patch of the model's own input covers.

    Raises:
        DetectorError: if that is no whole number, the same for both sides.
    """
    if own_size_px is None:
        return patch_px if patch_px & (patch_px - 1) == 0 else _USUAL_STRIDE
    strides = {patch_px * data / own for data, own in zip(data_size_px, own_size_px)}
    if len(strides) > 1 or not next(iter(strides)).is_integer():
        fitting = [side * patch_px // _USUAL_STRIDE for side in data_size_px]
        raise DetectorError(
            f"{architecture}: a patch of {patch_px} px at image_size_px {list(own_size_px)} covers "
            f"{sorted(strides)} px of the data's {list(data_size_px)}, which must be one whole number. Give "
            f"{fitting}, at which it is {_USUAL_STRIDE}."
        )
    return int(next(iter(strides)))
