"""Base of MMDetection's adapters: mmdet's own preprocessing, losses and detections around maps that AutoKD computes.

Legend: B images, C channels, H x W pixels or cells, A candidate boxes of an image, K classes of the data set, n boxes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from autokd.detector_outputs import TAPS, DetectorOutputs, HeadMaps, taps_where
from autokd.detectors.contract import Detections, Detector, Target, evaluating
from autokd.detectors.labels import LabelMap
from autokd.detectors.level_names import level_names
from autokd.detectors.mmdet.intercept import patched_methods, training_form
from autokd.detectors.mmdet.library import PROGRAM_ERRORS
from autokd.errors import DetectorError
from autokd.tensors import full_precision

_PROBE_PX = 128
"""Side of the empty image that shows channels and strides: the coarsest levels in use have a stride of 128."""

_HEAD_TAPS = frozenset(taps_where(needs_head=True))

_EVEN_PX = 32
"""Multiple of pixels to which most configs pad; every neck takes such sides."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Input of mmdet's parts: normalized, padded images and one data sample an image."""

    inputs_BCHW: Tensor
    samples: list[Any]
    has_targets: bool

    @property
    def image_size_px(self) -> tuple[int, int]:
        """(height, width) that holds every image; padding beyond it is left out."""
        heights, widths = zip(*(sample.img_shape[:2] for sample in self.samples))
        return max(heights), max(widths)


@dataclass(frozen=True, eq=False)
class Features:
    """The maps of the pyramid.

    replacements: methods of the model (name -> function) that return these very maps, for ``patched_methods``: with
    them ``model.loss`` and ``model.predict`` start from the maps instead of computing them again.
    """

    maps: tuple[Tensor, ...]
    replacements: Mapping[str, Callable[..., Any]]


@dataclass(frozen=True, eq=False)
class HeadReading:
    """Outputs of the heads: mmdet's losses unchanged, taps in the form of the contract, with the model's classes."""

    losses: Mapping[str, Any] = field(default_factory=dict)
    class_logits: Tensor | None = None
    boxes: Tensor | None = None
    edge_logits: Tensor | None = None
    proposals: Tensor | None = None
    head_maps: HeadMaps | None = None


class MmdetAdapter(Detector):
    """Base of the three families: one stage, two stages, queries.

    The images go through the model's own ``data_preprocessor`` in the form that mmdet's pipelines give them (BGR, 0 to
    255), so that its means, channel order and padding hold; its random batch augmentations are left out. Losses are
    those of ``model.loss``, by mmdet's names.

    Args:
        model: a detector of mmdet, built and initialized.
        architecture: its name in errors: the config of the section.
        labels: how the model's classes belong to the data set's.
    """

    def __init__(self, model: Any, architecture: str, labels: LabelMap) -> None:
        super().__init__()
        self.model = model
        self._choose_memory_format()
        self.architecture = architecture
        self.num_classes = len(labels.order)
        self._labels = labels
        shapes = self._probe(_PROBE_PX)
        strides = self._prior_strides(len(shapes)) or [_PROBE_PX // shape[-1] for shape in shapes]
        self._finest_first = sorted(range(len(strides)), key=strides.__getitem__)
        self._channels = shapes[self._finest_first[0]][1]
        self._strides = level_names([strides[index] for index in self._finest_first])
        self._pad_for_even_maps()

    @property
    def model_classes(self) -> tuple[str, ...] | None:
        """Names of the model's own classes, if its checkpoint states them; None: they are the data set's."""
        return self._labels.model_classes

    @property
    def strides(self) -> dict[str, int]:
        return dict(self._strides)

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def body(self) -> nn.Module:
        body: nn.Module = self.model.backbone  # the pyramid is the neck, beside it
        return body

    @property
    def pad_multiple_px(self) -> int:
        return int(self.model.data_preprocessor.pad_size_divisor)

    def check_runs(self, image_size_px: tuple[int, int]) -> None:
        """Compute losses, taps and detections of one empty image with one box, so that errors come before a training.

        Args:
            image_size_px: (height, width) of the image.

        Raises:
            DetectorError: if the model does not run.
        """
        height, width = image_size_px
        box = torch.tensor([[width / 4, height / 4, width / 2, height / 2]])
        device = next(self.parameters()).device
        target = {"boxes": box.to(device), "labels": torch.zeros(1, dtype=torch.int64, device=device)}
        with self._explained(f"for images of {height} x {width} pixels"), torch.no_grad(), evaluating(self):
            self._run(torch.zeros(1, 3, height, width, device=device), [target], TAPS, wants_detections=True)

    # ------------------------------------------------------------------------- in a training of mmengine

    def read(
        self, inputs_BCHW: Tensor, samples: list[Any], taps: Sequence[str]
    ) -> tuple[DetectorOutputs, dict[str, Any]]:
        """Read a batch of a training that mmengine runs. All parts of the model run, in the mode that they are in.

        Args:
            inputs_BCHW: images that the model's preprocessor has normalized and padded.
            samples: mmdet's data samples, with their annotations; images of a batch may differ in size.
            taps: names of the taps to return.

        Returns:
            The outputs, and mmdet's losses unchanged, as mmengine's ``parse_losses`` takes them.

        Raises:
            NonFiniteError: if maps or weights hold NaN or infinity.
        """
        batch = Batch(inputs_BCHW, samples, has_targets=True)
        features = self._features(batch)
        with self._blaming_nan(features):
            reading = self._read_heads(features, batch, self._of_heads(taps))
        return self._outputs(features, batch, reading, "head" in taps and "head" in self._head_taps), dict(
            reading.losses
        )

    @torch.no_grad()
    def read_pixels(
        self, pixels_BCHW: Tensor, sizes_px: Sequence[tuple[int, int]], taps: Sequence[str]
    ) -> DetectorOutputs:
        """Return the taps of images that share one canvas.

        Args:
            pixels_BCHW: BGR, 0 to 255, as pipelines of mmdet load them.
            sizes_px: (height, width) of each image from the upper left corner; beside it lies padding.
            taps: names of the taps to return.
        """
        batch = self._batch_of(pixels_BCHW, [None] * len(pixels_BCHW), sizes_px)
        # The padding was normalized like pixels; this model's own padding value goes there, as in its own training.
        for input_CHW, (height, width) in zip(batch.inputs_BCHW, sizes_px):
            input_CHW[:, height:] = input_CHW[:, :, width:] = self.model.data_preprocessor.pad_value
        features = self._features(batch)
        reading = self._read_heads(features, batch, self._of_heads(taps)) if self._of_heads(taps) else HeadReading()
        return self._outputs(features, batch, reading, "head" in taps and "head" in self._head_taps)

    # ------------------------------------------------------------------------------------ for families

    @abstractmethod
    def _features(self, batch: Batch) -> Features:
        """Run the model up to its pyramid."""

    @abstractmethod
    def _read_heads(self, features: Features, batch: Batch, taps: Sequence[str]) -> HeadReading:
        """Run the heads on the maps: losses if the batch has targets, and the given taps."""

    @property
    @abstractmethod
    def _head_taps(self) -> tuple[str, ...]:
        """Taps beside ``fpn`` that this model has."""

    @property
    def _is_known(self) -> bool:
        """Whether the head is one that the conformance suite covers."""
        return bool(self._head_taps)

    @property
    @abstractmethod
    def _formed_parts(self) -> list[nn.Module]:
        """Parts whose outputs differ between training and detection."""

    def _prior_strides(self, num_levels: int) -> list[int] | None:
        """Return the strides that the model's priors state; None: measure them."""
        return None

    def _unused_children(self) -> AbstractContextManager[None]:
        """Return a context in which the model lacks the parts that boxes do not need."""
        return nullcontext()

    # ----------------------------------------------------------------------------------------- inside

    def _choose_memory_format(self) -> None:
        if self._is_known:  # some other heads of MMDetection call ``view`` on maps, which channels-last maps refuse
            super()._choose_memory_format()

    def _run(
        self, images_BCHW: Tensor, targets: Sequence[Target] | None, taps: Sequence[str], wants_detections: bool
    ) -> tuple[DetectorOutputs, list[Detections]]:
        self._check_images(images_BCHW)
        self._check_taps(taps)
        batch = self._batch(images_BCHW, targets)
        wanted = self._of_heads(taps)
        detections: list[Detections] = []
        reading = HeadReading()
        with self._unused_children():
            features = self._features(batch)
            with self._blaming_nan(features):
                if batch.has_targets or wanted:
                    with self._repeatable_draws(images_BCHW.device):
                        reading = self._read_heads(features, batch, wanted)
                if wants_detections:
                    detections = self._detections(features, batch)
        wants_head = "head" in taps and "head" in self._head_taps
        return self._outputs(features, batch, reading, wants_head), detections

    def _of_heads(self, taps: Sequence[str]) -> tuple[str, ...]:
        """Those of ``taps`` for which the heads must run."""
        return tuple(tap for tap in self._head_taps if tap in taps and tap in _HEAD_TAPS)

    def _outputs(self, features: Features, batch: Batch, reading: HeadReading, wants_head: bool) -> DetectorOutputs:
        logits = full_precision(reading.class_logits)
        return DetectorOutputs(
            pyramid=dict(zip(self._strides, (features.maps[index] for index in self._finest_first))),
            strides=self.strides,
            class_logits=self._labels.select(logits) if logits is not None else None,
            boxes=full_precision(reading.boxes),
            losses=_task_losses(reading.losses) if batch.has_targets else None,
            image_size_px=(batch.inputs_BCHW.shape[-2], batch.inputs_BCHW.shape[-1]),
            edge_logits=full_precision(reading.edge_logits),
            proposals=full_precision(reading.proposals),
            head_maps=reading.head_maps,
            head=self._own_head(self.model.bbox_head) if wants_head else None,
        )

    def _batch(self, images_BCHW: Tensor, targets: Sequence[Target] | None) -> Batch:
        """Send images through the model's own preprocessor, for its colors and its padding."""
        num_images = len(images_BCHW)
        checked = self._check_targets(targets, num_images) if targets is not None else [None] * num_images
        sizes_px = [(images_BCHW.shape[-2], images_BCHW.shape[-1])] * num_images
        return self._batch_of(images_BCHW.flip(1) * 255, checked, sizes_px)

    def _batch_of(
        self, pixels_BCHW: Tensor, targets: Sequence[Target | None], sizes_px: Sequence[tuple[int, int]]
    ) -> Batch:
        """pixels_BCHW: BGR, 0 to 255."""
        from mmdet.structures import DetDataSample

        samples = []
        for index, (target, size) in enumerate(zip(targets, sizes_px)):
            about = {"img_id": index, "img_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0)}
            sample = DetDataSample(metainfo=about)
            if target is not None:
                sample.gt_instances = self._instances(target)
            samples.append(sample)
        preprocessor = self.model.data_preprocessor.to(pixels_BCHW.device)
        data = preprocessor({"inputs": pixels_BCHW, "data_samples": samples}, training=False)
        return Batch(data["inputs"], data["data_samples"], all(target is not None for target in targets))

    def _instances(self, target: Mapping[str, Tensor]) -> Any:
        from mmengine.structures import InstanceData

        return InstanceData(bboxes=target["boxes"], labels=self._labels.to_model(target["labels"]))

    def _losses_of_model(self, features: Features, batch: Batch) -> dict[str, Any]:
        """Return the losses of ``model.loss``, computed from these maps."""
        with patched_methods(self.model, features.replacements), training_form(self._formed_parts, True):
            return self.model.loss(batch.inputs_BCHW, batch.samples)

    def _detections(self, features: Features, batch: Batch) -> list[Detections]:
        with patched_methods(self.model, features.replacements):
            found = self.model.predict(batch.inputs_BCHW, batch.samples, rescale=False)
        return [self._detections_of(sample.pred_instances) for sample in found]

    def _detections_of(self, instances: Any) -> Detections:
        labels, known = self._labels.from_model(instances.labels)
        order = instances.scores[known].argsort(descending=True)
        boxes, scores = full_precision(instances.bboxes[known]), full_precision(instances.scores[known])
        # The score thresholds of some heads let NaN through; a diverged model has to find nothing.
        order = order[torch.isfinite(scores[order]) & torch.isfinite(boxes[order]).all(dim=1)]
        return {"boxes": boxes[order], "scores": scores[order], "labels": labels[known][order]}

    def _pad_for_even_maps(self) -> None:
        """Pad more than the config asks for, if its neck joins neighboring levels and needs even maps.

        RTMDet's preprocessor pads nothing, since its pipelines make all images 640 x 640.
        """
        # Only an attempt shows it: necks differ in which sides they take, and no attribute of them says so.
        if self.pad_multiple_px >= min(_EVEN_PX, max(self._strides.values())):
            return
        try:
            self._probe(_PROBE_PX + self.pad_multiple_px)
        except DetectorError:
            self.model.data_preprocessor.pad_size_divisor = max(self._strides.values())

    def _probe(self, side_px: int) -> list[tuple[int, int, int, int]]:
        """Return the shapes of the maps for an empty image; statistics and random numbers stay as they are."""
        empty = torch.zeros(1, 3, side_px, side_px)
        with self._explained("up to its pyramid"), torch.no_grad(), evaluating(self), torch.random.fork_rng():
            maps = self._features(self._batch(empty, None)).maps
        return [tuple(map_BCHW.shape) for map_BCHW in maps]  # type: ignore[misc]

    @contextmanager
    def _explained(self, how_far: str) -> Iterator[None]:
        """Errors of a first run are the config's."""
        try:
            yield
        except PROGRAM_ERRORS as error:
            raise DetectorError(
                f"{self.architecture}: the model was built, but does not run {how_far} ({type(error).__name__}: "
                f"{error}). Do the channels of backbone, neck and head agree? Are images large enough for its anchors "
                "or queries? Correct the config, or 'options' and data.image_size_px."
            ) from error


def _task_losses(losses: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the losses that mmengine adds up: entries with "loss" in their name, lists summed over the levels."""
    found: dict[str, Tensor] = {}
    for name, value in losses.items():
        if "loss" in name:
            parts = [full_precision(part).mean() for part in (value if isinstance(value, (list, tuple)) else [value])]
            found[name] = sum(parts[1:], start=parts[0])
    return found
