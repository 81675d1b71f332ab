"""What every detector has in common: checking and preparing the input, assembling ``DetectorOutputs``.

Legend: B images, C channels, H x W pixels or cells, A candidate boxes of an image, K classes, n boxes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autokd.detectors.anchors import AnchorTable
from autokd.detectors.layout import Layout
from autokd.errors import DetectorError, one_of
from autokd.outputs import TAPS, CrossHead, DetectorOutputs, HeadMaps

Target = Mapping[str, Tensor]
"""``boxes`` (n, 4) xyxy px, ``labels`` (n,) int64 from 0."""
Detections = dict[str, Tensor]
"""``boxes`` (n, 4) xyxy px of the network's input, ``scores`` (n,), ``labels`` (n,) from 0."""

DEFAULT_TAPS = ("fpn", "class_logits", "boxes")
"""What a forward gives unasked: what the heads have computed anyway. Proposals cost a suppression, a head a copy."""

_EVALUATION_SEED = 0
_HEAD_TAPS = frozenset({"class_logits", "boxes", "proposals", "head_maps"})
"""Taps for which the head must run."""


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


class Detector(nn.Module, ABC):
    """Base of adapters over a plain torchvision model.

    The input is already scaled by ``data``: adapters normalise colours and pad right and below, they never
    resize. Losses come in ``eval()`` mode too; batch-norm statistics then stay as they are and samplers draw the
    same numbers at every call. Under autocast the parts after the head's convolutions run in float32, and
    taps are float32. Inside, maps are channels-last, which saves a tenth of a training step on a CPU and a
    quarter of a forward; the pyramid comes out so.
    """

    model: Any
    """The plain torchvision model; ``Any``, since its parts are reached by name."""
    _mean_311: Tensor
    _std_311: Tensor

    def __init__(self, model: Any, architecture: str, num_classes: int, layout: Layout) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.architecture = architecture
        self.num_classes = num_classes
        self.layout = layout
        self._anchor_table = AnchorTable(self._anchor_generator, list(layout.strides.values()))
        self._kept_head: tuple[Any, CrossHead] | None = None
        mean_3, std_3 = torch.tensor(model.transform.image_mean), torch.tensor(model.transform.image_std)
        self.register_buffer("_mean_311", mean_3.view(3, 1, 1), persistent=False)
        self.register_buffer("_std_311", std_3.view(3, 1, 1), persistent=False)

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of the pyramid's levels, fine to coarse."""
        return self.layout.levels

    @property
    def strides(self) -> dict[str, int]:
        """Level name -> pixels of the network's input per cell."""
        return self.layout.strides

    def forward(
        self,
        images_BCHW: Tensor,
        targets: Sequence[Target] | None = None,
        taps: Sequence[str] = DEFAULT_TAPS,
    ) -> DetectorOutputs:
        """One forward: the pyramid, the asked-for taps, and the losses if targets are given.

        images_BCHW: (B, 3, H, W) in [0, 1]. taps: which of ``autokd.outputs.TAPS`` to give; without targets
        and with ``("fpn",)`` alone the heads do not run. Taps that the architecture does not have are None;
        ``autokd.detectors.taps_of`` lists those that it has.
        DetectorError where images, targets or taps are not of the described form.
        """
        return self._run(images_BCHW, targets, taps, wants_detections=False)[0]

    def forward_and_detect(
        self,
        images_BCHW: Tensor,
        targets: Sequence[Target] | None = None,
        taps: Sequence[str] = DEFAULT_TAPS,
    ) -> tuple[DetectorOutputs, list[Detections]]:
        """``forward`` and ``detect`` from one pass, for evaluation; evaluation mode, no gradient."""
        with torch.no_grad(), _evaluating(self):
            return self._run(images_BCHW, targets, taps, wants_detections=True)

    def detect(self, images_BCHW: Tensor) -> list[Detections]:
        """Boxes in pixels of the network's input, scores falling; evaluation mode, no gradient."""
        return self.forward_and_detect(images_BCHW, taps=("fpn",))[1]

    def cross_head(self) -> CrossHead:
        """A frozen copy of the head as it is now, cut in two; DetectorError where the architecture has none."""
        head = self._cross_head()
        if head is None:
            raise DetectorError(
                f"{self.architecture} has no dense head that could judge another detector's maps (CrossKD). "
                "Take fcos or retinanet as the teacher."
            )
        return head

    def plain_state_dict(self) -> dict[str, Tensor]:
        """A copy of the weights, on the CPU, that loads in the plain torchvision model."""
        return {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in self.model.state_dict().items()
        }

    # ---------------------------------------------------------------------------------- for subclasses

    @abstractmethod
    def _predict(self, pyramid: Mapping[str, Tensor]) -> dict[str, Any]:
        """Raw outputs of the head that looks at every cell."""

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
    def _listening(self, pyramid: Mapping[str, Tensor]) -> Iterator[HeadMaps | None]:
        """Within, a forward of the head fills what is given with the maps at its cut; None if it cannot be cut."""
        yield None

    def _cross_head(self) -> CrossHead | None:
        """A new frozen copy of the head, or None."""
        return None

    @abstractmethod
    def _proposals_BR4(self, raw: dict[str, Any], frame: Frame) -> Tensor:
        """(B, R, 4) for the tap ``proposals``."""

    @property
    @abstractmethod
    def _anchor_generator(self) -> Any: ...

    # ----------------------------------------------------------------------------------------- inside

    def _run(
        self, images_BCHW: Tensor, targets: Sequence[Target] | None, taps: Sequence[str], wants_detections: bool
    ) -> tuple[DetectorOutputs, list[Detections]]:
        self._check_images(images_BCHW)
        for tap in taps:
            if tap not in TAPS:
                raise DetectorError(f"forward of {self.architecture}: " + one_of(tap, TAPS, noun="tap"))
        padded_BCHW = self._normalise_and_pad(images_BCHW)
        pyramid = self.model.backbone(padded_BCHW)
        # The heads look at the very tensors that are given out: the losses' gradient on the taps sets the weights.
        pyramid = {level: _full_precision(tap) for level, tap in zip(self.level_names, pyramid.values())}
        losses = class_logits = boxes = proposals = head_maps = None
        detections: list[Detections] = []
        if targets is not None or wants_detections or not _HEAD_TAPS.isdisjoint(taps):
            with self._listening(pyramid) if "head_maps" in taps else nullcontext() as head_maps:
                raw = self._predict(pyramid)
            with torch.autocast(images_BCHW.device.type, enabled=False):
                raw = {name: _full_precision(value) for name, value in raw.items()}
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
            head=self._own_head() if "head" in taps else None,
        )
        return outputs, detections

    def _own_head(self) -> CrossHead | None:
        """``_cross_head``, made anew only when the weights have changed or moved."""
        module = getattr(self.model, "head", None)
        if module is None:
            return None
        state = [(id(value), value._version, value.device) for value in module.parameters()]
        if self._kept_head is None or self._kept_head[0] != state:
            head = self._cross_head()
            self._kept_head = None if head is None else (state, head)
        return self._kept_head[1] if self._kept_head is not None else None

    def _normalise_and_pad(self, images_BCHW: Tensor) -> Tensor:
        """Colours first, so that the padding is the mean colour, as in torchvision."""
        normal_BCHW = (images_BCHW - self._mean_311) / self._std_311
        multiple = self.layout.pad_multiple_px
        below, right = (-images_BCHW.shape[-2]) % multiple, (-images_BCHW.shape[-1]) % multiple
        if below or right:
            normal_BCHW = F.pad(normal_BCHW, (0, right, 0, below))
        return normal_BCHW.contiguous(memory_format=torch.channels_last)

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

    @contextmanager
    def _repeatable_draws(self, device: torch.device) -> Iterator[None]:
        """Outside training, samplers of the loss draw from a fixed seed and leave the global state alone."""
        if self.training:
            yield
            return
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(_EVALUATION_SEED)
            yield

    def _check_images(self, images_BCHW: Tensor) -> None:
        if images_BCHW.ndim != 4 or images_BCHW.shape[1] != 3 or not images_BCHW.is_floating_point():
            raise DetectorError(
                f"images have shape {tuple(images_BCHW.shape)} and type {images_BCHW.dtype}; a detector takes "
                "(batch, 3, height, width) floats in [0, 1]. Collate the samples, and divide bytes by 255."
            )

    def _check_targets(self, targets: Sequence[Target], num_images: int) -> list[dict[str, Tensor]]:
        """Refuse what would end in a wrong loss or an index error deep inside torchvision."""
        if len(targets) != num_images:
            raise DetectorError(f"{len(targets)} targets were given for {num_images} images; give one an image.")
        for index, target in enumerate(targets):
            if target["boxes"].shape != (len(target["labels"]), 4):
                raise DetectorError(
                    f"targets[{index}] has boxes of shape {tuple(target['boxes'].shape)} and "
                    f"{len(target['labels'])} labels; boxes are (n, 4) for n labels, (0, 4) where there are none."
                )
        boxes_n4 = torch.cat([target["boxes"] for target in targets])
        labels_n = torch.cat([target["labels"] for target in targets])
        # Written so that NaN counts as wrong.
        wrong_n = ~(boxes_n4[:, 2:] > boxes_n4[:, :2]).all(dim=1) | (labels_n < 0) | (labels_n >= self.num_classes)
        if wrong_n.any():
            first = int(wrong_n.nonzero()[0])
            counts = torch.tensor([len(target["labels"]) for target in targets]).cumsum(0)
            image = int((counts <= first).sum())
            raise DetectorError(
                f"targets[{image}] has the box {boxes_n4[first].tolist()} with label {int(labels_n[first])}; a box is "
                f"(x0, y0, x1, y1) with x0 < x1 and y0 < y1, a label one of 0..{self.num_classes - 1}. "
                "Drop degenerate boxes, and map category ids to labels from 0."
            )
        return [{"boxes": target["boxes"], "labels": target["labels"]} for target in targets]


def _full_precision_maps(maps: HeadMaps | None) -> HeadMaps | None:
    if maps is None:
        return None
    return {level: (_full_precision(one), _full_precision(other)) for level, (one, other) in maps.items()}


def _full_precision(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; each submodule's own mode afterwards (some may be frozen)."""
    if not module.training:
        yield
        return
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
