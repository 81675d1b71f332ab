"""Base of torchvision's adapters: it checks and prepares the input, and assembles ``DetectorOutputs``.

Legend: B images, C channels, H x W pixels or cells, A candidate boxes of an image, K classes, n boxes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autokd.config import TorchvisionDetector
from autokd.detector_outputs import DetectorOutputs, HeadMaps, taps_where
from autokd.detectors.contract import Detections, Detector, Target
from autokd.detectors.torchvision.advice import advice_on
from autokd.detectors.torchvision.anchors import AnchorTable
from autokd.detectors.torchvision.classes import HeadClasses
from autokd.detectors.torchvision.layout import Layout
from autokd.detectors.torchvision.old_names import with_present_names
from autokd.detectors.torchvision.stages import freeze_stages, plan_of_section
from autokd.tensors import full_precision

_HEAD_TAPS = frozenset(taps_where(needs_head=True))


@dataclass(frozen=True)
class Frame:
    """The geometry of one batch: (height, width) of the images and of the padded input."""

    num_images: int
    image_size_px: tuple[int, int]
    padded_size_px: tuple[int, int]
    anchors_A4: Tensor
    num_anchors_by_level: list[int]

    @property
    def anchors(self) -> list[Tensor]:
        """The same anchors for each image, as torchvision's parts want them."""
        return [self.anchors_A4] * self.num_images

    @property
    def image_sizes(self) -> list[tuple[int, int]]:
        return [self.image_size_px] * self.num_images


class TorchvisionAdapter(Detector):
    """Base of adapters over a plain torchvision model.

    It drives the parts of the model itself, since torchvision's own ``forward`` resizes images, returns no taps, and
    returns either losses or detections. Under autocast the parts after the head's convolutions run in float32. The
    pyramid is laid out as ``memory_format`` says.
    """

    _model_levels: tuple[str, ...]
    """Names of the pyramid's levels in the plain model, where they may differ from ``level_names``."""
    _mean_311: Tensor
    _std_311: Tensor

    def __init__(self, model: Any, section: TorchvisionDetector, classes: HeadClasses, layout: Layout) -> None:
        super().__init__()
        self.model = model
        self._choose_memory_format()
        self.architecture = section.architecture
        self.num_classes = classes.num_classes
        self._head_classes = classes
        self._section = section
        self.layout = layout
        self._frozen = freeze_stages(self.body, section)
        self.train()
        self._anchor_table = AnchorTable(self._anchor_generator, list(layout.strides.values()))
        mean_3, std_3 = torch.tensor(model.transform.image_mean), torch.tensor(model.transform.image_std)
        self.register_buffer("_mean_311", mean_3.view(3, 1, 1), persistent=False)
        self.register_buffer("_std_311", std_3.view(3, 1, 1), persistent=False)

    @property
    def strides(self) -> dict[str, int]:
        return self.layout.strides

    @property
    def channels(self) -> int:
        return int(self.model.backbone.out_channels)

    @property
    def body(self) -> nn.Module:
        body: nn.Module = self.model.backbone.body  # torchvision's backbone is body and pyramid together
        return body

    @property
    def stem(self) -> tuple[nn.Module, ...]:
        parts = dict(self.body.named_modules())
        names = plan_of_section(self._section).stem
        # A body that was put in place of the section's own has no known stem.
        return tuple(parts[name] for name in names) if parts.keys() >= set(names) else ()

    @property
    def pad_multiple_px(self) -> int:
        return self.layout.pad_multiple_px

    def train(self, mode: bool = True) -> TorchvisionAdapter:
        """Set the mode; frozen stages stay in evaluation mode, so that the statistics of their norms stay too."""
        super().train(mode)
        for part in self._frozen_parts():
            part.train(False)
        return self

    def translated(self, weights: dict[str, Tensor], where: Path, *, new_head: bool = False) -> dict[str, Tensor]:
        """See ``Detector.translated``: old names of torchvision become today's, and its classes the data set's."""
        expected = self.model.state_dict()
        present = with_present_names(weights, expected)
        layers = [name for name in self._class_layers if name in present]
        if any(
            name not in present or present[name].shape != value.shape
            for name, value in expected.items()
            if name not in layers and not name.endswith("num_batches_tracked")
        ):
            return present  # another model's, whose classes do not matter
        if new_head:
            return present | {name: expected[name] for name in layers}
        return present | self._of_our_classes({name: present[name] for name in layers}, where)

    def classes_of(self, file: Path) -> HeadClasses:
        """Return what is known of the classes of a file; names that the section states are those of its checkpoint.

        Args:
            file: a file of weights, which may be this detector's own after a training.
        """
        return self._head_classes if file == self._section.checkpoint else replace(self._head_classes, stated=None)

    def misfit_advice(self, weights: Mapping[str, Tensor]) -> str:
        """See ``Detector.misfit_advice``."""
        found = advice_on(weights, self.architecture, self.body)
        return found or super().misfit_advice(weights)

    # ---------------------------------------------------------------------------------- for subclasses

    _class_layers: ClassVar[tuple[str, ...]]
    """Names of the weights whose rows are classes."""

    @abstractmethod
    def _of_our_classes(self, layers: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
        """Return the weights among ``_class_layers`` with the rows of the data set's classes, in its order."""

    @abstractmethod
    def _predict(self, pyramid: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the raw outputs of the head that looks at every cell, by torchvision's names."""

    @abstractmethod
    def _losses(
        self, pyramid: Mapping[str, Tensor], raw: dict[str, Any], frame: Frame, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Task losses, torchvision's names."""

    @abstractmethod
    def _detections(self, pyramid: Mapping[str, Tensor], raw: dict[str, Any], frame: Frame) -> list[Detections]: ...

    def _class_logits(self, raw: dict[str, Any]) -> Tensor | None:
        """(B, A, K), or None."""
        return None

    def _boxes(self, raw: dict[str, Any], frame: Frame) -> Tensor | None:
        """(B, A, 4) decoded, or None."""
        return None

    @contextmanager
    def _recording_head_maps(self, pyramid: Mapping[str, Tensor]) -> Iterator[HeadMaps | None]:
        """Yield a mapping that a forward of the head within the context fills with the maps at its cut.

        None if the head cannot be cut.
        """
        yield None

    @abstractmethod
    def _proposals_BR4(self, raw: dict[str, Any], frame: Frame) -> Tensor:
        """(B, R, 4) for the tap ``proposals``."""

    @property
    @abstractmethod
    def _anchor_generator(self) -> Any: ...

    # ----------------------------------------------------------------------------------------- inside

    def _frozen_parts(self) -> list[nn.Module]:
        # By name, since trainings on several processes replace norms, and during the constructor there are none yet.
        return [self.body.get_submodule(name) for name in getattr(self, "_frozen", ())]

    def _run(
        self, images_BCHW: Tensor, targets: Sequence[Target] | None, taps: Sequence[str], wants_detections: bool
    ) -> tuple[DetectorOutputs, list[Detections]]:
        self._check_images(images_BCHW)
        self._check_taps(taps)
        padded_BCHW = self.normalize_and_pad(images_BCHW)
        pyramid = self.model.backbone(padded_BCHW)
        self._model_levels = tuple(pyramid)
        # The heads read the very tensors that are returned: gradients of the losses on the taps, which calibrate the
        # weights of distillation, do not exist for copies.
        pyramid = {level: full_precision(tap) for level, tap in zip(self.level_names, pyramid.values())}
        losses = class_logits = boxes = proposals = head_maps = None
        detections: list[Detections] = []
        if targets is not None or wants_detections or not _HEAD_TAPS.isdisjoint(taps):
            with self._recording_head_maps(pyramid) if "head_maps" in taps else nullcontext() as head_maps:
                raw = self._predict(pyramid)
            with torch.autocast(images_BCHW.device.type, enabled=False):
                raw = {name: full_precision(value) for name, value in raw.items()}
                frame = self._frame(images_BCHW, padded_BCHW)
                if targets is not None:
                    checked = self._check_targets(targets, len(images_BCHW))
                    with self._repeatable_draws(images_BCHW.device):
                        losses = self._losses(pyramid, raw, frame, checked)
                if "class_logits" in taps:
                    class_logits = self._class_logits(raw)
                if "boxes" in taps:
                    boxes = self._boxes(raw, frame)
                if "proposals" in taps:
                    proposals = self._proposals_BR4(raw, frame)
                if wants_detections:
                    detections = self._detections(pyramid, raw, frame)
        outputs = DetectorOutputs(
            pyramid=pyramid,
            strides=self.strides,
            class_logits=class_logits,
            boxes=boxes,
            losses=losses,
            image_size_px=(padded_BCHW.shape[-2], padded_BCHW.shape[-1]),
            proposals=proposals,
            head_maps=_full_precision_maps(head_maps),
            head=self._own_head(getattr(self.model, "head", None)) if "head" in taps else None,
        )
        return outputs, detections

    def normalize_and_pad(self, images_BCHW: Tensor) -> Tensor:
        """Return the input of the network.

        Args:
            images_BCHW: (B, 3, H, W) RGB in [0, 1].

        Returns:
            (B, 3, H', W') with the weights' mean and standard deviation; H' and W' are the next multiples of
            ``pad_multiple_px``, padded below and to the right.
        """
        # Colors first, so that the padding is the mean color, as in torchvision.
        normal_BCHW = (images_BCHW - self._mean_311) / self._std_311
        multiple = self.layout.pad_multiple_px
        below, right = (-images_BCHW.shape[-2]) % multiple, (-images_BCHW.shape[-1]) % multiple
        if below or right:
            normal_BCHW = F.pad(normal_BCHW, (0, right, 0, below))
        return normal_BCHW.contiguous(memory_format=self.memory_format)

    def _frame(self, images_BCHW: Tensor, padded_BCHW: Tensor) -> Frame:
        height, width = padded_BCHW.shape[-2:]
        cells = tuple((height // stride, width // stride) for stride in self.strides.values())
        anchors_A4, num_by_level = self._anchor_table(cells, padded_BCHW.device)
        return Frame(
            num_images=len(images_BCHW),
            image_size_px=(images_BCHW.shape[-2], images_BCHW.shape[-1]),
            padded_size_px=(height, width),
            anchors_A4=anchors_A4,
            num_anchors_by_level=num_by_level,
        )


def _full_precision_maps(maps: HeadMaps | None) -> HeadMaps | None:
    if maps is None:
        return None
    return {level: (full_precision(one), full_precision(other)) for level, (one, other) in maps.items()}
