"""A detector of transformers behind AutoKD's contract: its own colors, losses and detections, its encoder's maps.

Legend: B images, C channels, H x W pixels or cells, n boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autokd.detector_outputs import DetectorOutputs, taps_where
from autokd.detectors.contract import Detections, Detector, Target, evaluating
from autokd.detectors.labels import LabelMap
from autokd.detectors.level_names import level_names
from autokd.detectors.transformers.library import PROGRAM_ERRORS, first_line
from autokd.detectors.transformers.maps import MapsOnly, Taken, maps_of, taking_maps
from autokd.detectors.transformers.outputs import (
    CHOOSING_TYPES,
    SHARED_TAPS,
    FullPrecisionLoss,
    Reading,
    detections_of,
    losses_of,
    taps_of_type,
)
from autokd.detectors.transformers.processor import Colors
from autokd.detectors.transformers.shared_queries import predict_shared, recorded_arguments
from autokd.errors import DetectorError

_PROBE_PX = 128
"""Side of the empty image that shows channels and strides; a multiple of what the model pads to, if that is more."""
_EVEN_PX = 32
"""Multiple of pixels that hybrid encoders need, which join maps of neighboring levels."""
_BACKBONES = ("backbone", "conv_encoder")
_HEAD_TAPS = frozenset(taps_where(needs_head=True))


class TransformersAdapter(Detector):
    """Any model that ``maps_of`` knows.

    The pyramid is what the decoder reads: maps of the encoder by stride, of a projector, or the patches that the last
    layer of a YOLOS reads. Class logits and boxes are those of the matching queries after the last layer: row q is
    query q. The loss is the model's own. A model sees the whole padded input, without a mask of padding.

    Args:
        model: an object detector of transformers.
        processor: its image processor.
        architecture: its name in errors.
        labels: how the model's classes belong to the data set's.
    """

    def __init__(self, model: Any, processor: Any, architecture: str, labels: LabelMap) -> None:
        super().__init__()
        self.model = model
        self.architecture = architecture
        self.num_classes = len(labels.order)
        self.processor = processor
        self._labels = labels
        self._colors = Colors(processor)
        self._attach = maps_of(model)
        self._taps = taps_of_type(model.config.model_type)
        model.loss_function = FullPrecisionLoss(model.loss_function)
        self._choose_memory_format()
        self._pad_px = _pad_multiple(model.config)
        self._strides, self._channels = self._probe()

    @property
    def strides(self) -> dict[str, int]:
        return dict(self._strides)

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def pad_multiple_px(self) -> int:
        return self._pad_px

    @property
    def model_classes(self) -> tuple[str, ...] | None:
        """Names of the model's own classes, if they are not the data set's."""
        return self._labels.model_classes

    @property
    def body(self) -> nn.Module:
        inner = getattr(self.model, "model", None)
        for name in _BACKBONES:
            if isinstance(part := getattr(inner, name, None), nn.Module):
                return part
        return super().body

    def _choose_memory_format(self) -> None:
        """Leave maps as they are: models of transformers flatten them, and some call ``view``."""

    def misfit_advice(self, weights: Any) -> str:
        return (
            "Give the model's name, or the keys of 'config', as they were when the checkpoint was made, and use a data "
            "set with the same classes."
        )

    def check_cells(self, image_size_px: tuple[int, int]) -> None:
        """Check that images have as many cells as queries, if queries are chosen among cells.

        Args:
            image_size_px: (height, width) of the images.

        Raises:
            DetectorError: if they have fewer.
        """
        config = self.model.config
        if config.model_type not in CHOOSING_TYPES:
            return
        height, width = (-(-side // self._pad_px) * self._pad_px for side in image_size_px)
        num_cells = sum(-(-height // stride) * -(-width // stride) for stride in self._strides.values())
        if num_cells < config.num_queries:
            raise DetectorError(
                f"{self.architecture}: images of {height} x {width} pixels have {num_cells} cells, of which "
                f"{config.num_queries} queries are chosen. Enlarge data.image_size_px (and proxy.image_size_px), "
                f"or set 'config: {{num_queries: {num_cells}}}' or fewer."
            )

    # ----------------------------------------------------------------------------------------- inside

    def _run(
        self, images_BCHW: Tensor, targets: Sequence[Target] | None, taps: Sequence[str], wants_detections: bool
    ) -> tuple[DetectorOutputs, list[Detections]]:
        self._check_images(images_BCHW)
        self._check_taps(taps)
        num_images, image_size_px = len(images_BCHW), (images_BCHW.shape[-2], images_BCHW.shape[-1])
        checked = None if targets is None else self._check_targets(targets, num_images)
        pixels_BCHW = self._pixels(images_BCHW)
        input_size_px = (pixels_BCHW.shape[-2], pixels_BCHW.shape[-1])
        self.check_cells(input_size_px)
        labels = None if checked is None else self._labels_for(checked, input_size_px)
        wanted = tuple(tap for tap in self._taps if tap in taps and tap in _HEAD_TAPS)
        maps_only = labels is None and not wanted and not wants_detections
        output, taken, shared = self._forward(pixels_BCHW, labels, maps_only, bool(set(SHARED_TAPS) & set(wanted)))
        found: dict[str, Any] = {}
        detections: list[Detections] = []
        if wanted:
            found = Reading(output, self.model.config, self._labels, input_size_px, shared).taps(wanted)
        if wants_detections:
            detections = detections_of(output, self.processor, self._labels, input_size_px, image_size_px)
        outputs = DetectorOutputs(
            pyramid=dict(zip(self._strides, taken.maps)),
            strides=self.strides,
            losses=None if labels is None else losses_of(output),
            image_size_px=input_size_px,
            **found,
        )
        return outputs, detections

    def _forward(
        self, pixels_BCHW: Tensor, labels: list[dict[str, Tensor]] | None, maps_only: bool, with_shared: bool = False
    ) -> tuple[Any, Taken, tuple[Tensor, ...]]:
        """Return the model's output, None if the maps alone are wanted; the maps; and what shared queries predict."""
        output, inner = None, getattr(self.model, "model", self.model)
        shared: tuple[Tensor, ...] = ()
        with taking_maps(self.model, self._attach, maps_only) as taken, self._blaming_nan(taken):
            try:
                with self._repeatable_draws(pixels_BCHW.device):
                    with recorded_arguments(getattr(inner, "decoder", inner), with_shared) as arguments:
                        output = self.model(pixel_values=pixels_BCHW, labels=labels)
                    if with_shared:
                        shared = predict_shared(inner, arguments)
            except MapsOnly:
                pass
        return output, taken, shared

    def _pixels(self, images_BCHW: Tensor) -> Tensor:
        """Normalize, then pad right and below with zeros, as image processors do."""
        height, width = images_BCHW.shape[-2:]
        return F.pad(self._colors(images_BCHW), (0, -width % self._pad_px, 0, -height % self._pad_px))

    def _labels_for(self, targets: Sequence[Target], input_size_px: tuple[int, int]) -> list[dict[str, Tensor]]:
        """Return targets as the model takes them: boxes as center and size, relative to the padded input."""
        height, width = input_size_px
        found = []
        for target in targets:
            boxes = target["boxes"] / target["boxes"].new_tensor([width, height, width, height])
            centered = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
            found.append({"class_labels": self._labels.to_model(target["labels"]), "boxes": centered})
        return found

    def _probe(self) -> tuple[dict[str, int], int]:
        """Return the strides by level and the finest level's channels; state and random numbers stay as they are."""
        side = math.lcm(_PROBE_PX, self._pad_px)
        try:
            with torch.no_grad(), evaluating(self):
                maps = self._forward(torch.zeros(1, 3, side, side), None, maps_only=True)[1].maps
        except PROGRAM_ERRORS as error:
            raise DetectorError(
                f"{self.architecture}: does not run on an image of {side} x {side} pixels ({first_line(error)}). "
                "Correct its configuration: sizes of the backbone's maps must be those that the encoder expects."
            ) from error
        return level_names([side // map_BCHW.shape[-1] for map_BCHW in maps]), maps[0].shape[1]


def _pad_multiple(config: Any) -> int:
    """Return the multiple of pixels to which inputs are padded: whole patches and windows, even maps."""
    backbone = getattr(config, "backbone_config", None) or config
    patch = getattr(backbone, "patch_size", None)
    if patch is None:
        return _EVEN_PX
    windows = getattr(backbone, "num_windows", 1) or 1
    if config.model_type == "lw_detr":  # it counts the windows of the whole image
        windows = math.isqrt(windows)
    sides = int(patch) * int(windows)
    return math.lcm(sides, _EVEN_PX) if config.model_type == "deimv2" else sides
