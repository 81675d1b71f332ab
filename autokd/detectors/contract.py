"""What every detector promises, whoever makes its model: one forward for losses and taps, and detections.

Legend: B images, H x W pixels, n boxes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from autokd.detectors.memory_format import memory_format_of
from autokd.errors import DetectorError, one_of
from autokd.outputs import TAPS, CrossHead, DetectorOutputs, taps_where

Target = Mapping[str, Tensor]
"""``boxes`` (n, 4) xyxy px, ``labels`` (n,) int64 from 0."""
Detections = dict[str, Tensor]
"""``boxes`` (n, 4) xyxy px of the network's input, ``scores`` (n,), ``labels`` (n,) from 0."""

DEFAULT_TAPS = taps_where(is_default=True)
"""Taps of a forward that is asked for none: the cheap ones. Proposals cost a suppression, a head a copy."""

_EVALUATION_SEED = 0


class Detector(nn.Module, ABC):
    """Base of all adapters.

    The input is already scaled by ``data``: adapters normalise colours and pad right and below, they never
    resize. Losses come in ``eval()`` mode too; batch-norm statistics then stay as they are and samplers draw the
    same numbers at every call. Under autocast the taps are float32 all the same.
    """

    model: Any
    """The plain model of the framework; ``Any``, since its parts are reached by name."""
    architecture: str
    num_classes: int
    memory_format: torch.memory_format = torch.contiguous_format
    """Layout of maps in memory, chosen for the device that the weights are on."""

    def __init__(self) -> None:
        super().__init__()
        self._kept_head: tuple[Any, CrossHead] | None = None

    @property
    @abstractmethod
    def strides(self) -> dict[str, int]:
        """Level name -> pixels of the network's input per cell, fine to coarse."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of the pyramid's finest level."""

    @property
    @abstractmethod
    def pad_multiple_px(self) -> int:
        """Both sides of the padded input are multiples of this."""

    @abstractmethod
    def _run(
        self, images_BCHW: Tensor, targets: Sequence[Target] | None, taps: Sequence[str], wants_detections: bool
    ) -> tuple[DetectorOutputs, list[Detections]]:
        """One pass; images, targets and names of taps are still unchecked."""

    @property
    def body(self) -> nn.Module:
        """Feature extractor under the pyramid, which ``proxy.frozen`` may keep as it is.

        Raises:
            DetectorError: if the framework knows no such part.
        """
        raise DetectorError(
            f"proxy.frozen: no part of a {self.architecture} is known to be its backbone. Leave 'frozen' out."
        )

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of the pyramid's levels, fine to coarse."""
        return tuple(self.strides)

    def forward(
        self,
        images_BCHW: Tensor,
        targets: Sequence[Target] | None = None,
        taps: Sequence[str] = DEFAULT_TAPS,
    ) -> DetectorOutputs:
        """One forward: the pyramid, the asked-for taps, and the losses if targets are given.

        images_BCHW: (B, 3, H, W) RGB in [0, 1]. taps: which of ``autokd.outputs.TAPS`` to give; without targets
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
        with torch.no_grad(), evaluating(self):
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
                "Take fcos or retinanet, or another with a dense head, as the teacher."
            )
        return head

    @contextmanager
    def counting_positives(self) -> Iterator[list[Tensor]]:
        """Within, each forward with targets adds how many positives its losses were sums over (and divided by).

        A list that stays empty says that the losses are means over images.
        """
        yield []

    def plain_state_dict(self) -> dict[str, Tensor]:
        """A copy of the weights, on the CPU, that loads in the framework's plain model."""
        return {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in self.model.state_dict().items()
        }

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Detector:
        """Choose the layout of maps again, since ``to``, ``cpu`` and ``cuda`` all end here.

        A detector is built on the CPU and moved later, and what is safe differs between devices.
        """
        super()._apply(fn, recurse)
        self._choose_memory_format()
        return self

    # ------------------------------------------------------------------------------------ for adapters

    def _choose_memory_format(self) -> None:
        """Lay the weights out as ``memory_format_of`` says; an adapter calls it once its ``model`` is there."""
        self.memory_format = memory_format_of(self.model, next(self.model.parameters()).device)
        # Weights too: torch runs a convolution channels-last if either its input or its weight is laid out so.
        self.model.to(memory_format=self.memory_format)

    def _cross_head(self) -> CrossHead | None:
        """A new frozen copy of the head, or None."""
        return None

    def _own_head(self, module: nn.Module | None) -> CrossHead | None:
        """``_cross_head`` of the head ``module``, made anew only when its weights have changed or moved."""
        if module is None:
            return None
        state = [(id(value), value._version, value.device) for value in module.parameters()]
        if self._kept_head is None or self._kept_head[0] != state:
            head = self._cross_head()
            self._kept_head = None if head is None else (state, head)
        return self._kept_head[1] if self._kept_head is not None else None

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

    def _check_taps(self, taps: Sequence[str]) -> None:
        for tap in taps:
            if tap not in TAPS:
                raise DetectorError(f"forward of {self.architecture}: " + one_of(tap, TAPS, noun="tap"))

    def _check_images(self, images_BCHW: Tensor) -> None:
        if images_BCHW.ndim != 4 or images_BCHW.shape[1] != 3 or not images_BCHW.is_floating_point():
            raise DetectorError(
                f"images have shape {tuple(images_BCHW.shape)} and type {images_BCHW.dtype}; a detector takes "
                "(batch, 3, height, width) floats in [0, 1]. Collate the samples, and divide bytes by 255."
            )

    def _check_targets(self, targets: Sequence[Target], num_images: int) -> list[dict[str, Tensor]]:
        """Refuse what would end in a wrong loss or an index error deep inside the framework."""
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


def full_precision(value: Any) -> Any:
    """Half-precision tensors as float32, anything else as it is."""
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
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
