"""The contract of a detector, whatever its framework: one forward for losses and taps, and detections.

Legend: B images, H x W pixels, n boxes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autokd.detector_outputs import TAPS, CrossHead, DetectorOutputs, taps_where
from autokd.detectors.memory_format import memory_format_of
from autokd.errors import DetectorError, NonFiniteError, one_of
from autokd.targets import CheckedTargets, wrong_targets

Target = Mapping[str, Tensor]
"""``boxes`` (n, 4) xyxy px, ``labels`` (n,) int64 from 0."""
Detections = dict[str, Tensor]
"""``boxes`` (n, 4) xyxy px of the network's input, ``scores`` (n,), ``labels`` (n,) from 0."""

DEFAULT_TAPS = taps_where(is_default=True)
"""Taps of a forward that is asked for none: the cheap ones. Proposals cost a suppression, a head a copy."""

_EVALUATION_SEED = 0


class HoldsMaps(Protocol):
    """What keeps the maps of one forward."""

    @property
    def maps(self) -> Sequence[Tensor]:
        """The maps that there are so far."""


class Detector(nn.Module, ABC):
    """Base of all adapters: a plain model of a framework, and the way from its parts to ``DetectorOutputs``.

    ``autokd.data`` has scaled the input already: adapters normalize colors and pad right and below, they never resize.
    A forward in ``eval()`` mode returns losses too; it leaves the statistics of batch norms as they are, and samplers
    of the loss draw the same numbers at every call. Taps are float32 also under autocast.

    A subclass implements the abstract members, sets ``model``, ``architecture`` and ``num_classes``, and then calls
    ``_choose_memory_format``.
    """

    model: Any
    """Plain model of the framework; ``Any``, since adapters reach its parts by name."""
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
        """Pixels of the network's input per cell, by the name of the level, fine to coarse."""

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
        """Run the model once, for all public methods.

        An implementation calls ``_check_images``, ``_check_taps`` and ``_check_targets`` itself, since only it knows
        which of its parts may run before.
        """

    @property
    def body(self) -> nn.Module:
        """Feature extractor under the pyramid, which ``proxy.frozen`` and ``backbone_lr_factor`` treat apart.

        Raises:
            DetectorError: if the framework knows no such part.
        """
        raise DetectorError(
            f"no part of a {self.architecture} is known to be its backbone. Leave 'frozen' out of 'proxy', and "
            "'backbone_lr_factor' out of the recipes."
        )

    @property
    def stem(self) -> tuple[nn.Module, ...]:
        """Part of ``body`` before its stages; empty if the framework does not know it."""
        return ()

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
        """Run the model once.

        Args:
            images_BCHW: (B, 3, H, W) RGB in [0, 1].
            targets: boxes and labels of each image, for the losses; None: no losses.
            taps: names of ``autokd.detector_outputs.TAPS`` to return. The pyramid is always there; without targets and
                with ``("fpn",)`` alone the heads do not run.

        Returns:
            The pyramid, the taps, and the losses if there are targets. A tap that the architecture does not have is
            None; ``autokd.detectors.taps_of`` lists those that it has.

        Raises:
            DetectorError: if images, targets or taps are not of the described form.
        """
        return self._run(images_BCHW, targets, taps, wants_detections=False)[0]

    def forward_and_detect(
        self,
        images_BCHW: Tensor,
        targets: Sequence[Target] | None = None,
        taps: Sequence[str] = DEFAULT_TAPS,
    ) -> tuple[DetectorOutputs, list[Detections]]:
        """Return the results of ``forward`` and of ``detect`` from one pass, in evaluation mode, without gradient.

        Args:
            images_BCHW: as in ``forward``.
            targets: as in ``forward``.
            taps: as in ``forward``.
        """
        with torch.no_grad(), evaluating(self):
            return self._run(images_BCHW, targets, taps, wants_detections=True)

    def detect(self, images_BCHW: Tensor) -> list[Detections]:
        """Return the boxes found in each image, best first, in pixels of the network's input.

        The detector runs in evaluation mode and without gradient; afterwards each module is in its own mode again.

        Args:
            images_BCHW: (B, 3, H, W) RGB in [0, 1].
        """
        return self.forward_and_detect(images_BCHW, taps=("fpn",))[1]

    def cross_head(self) -> CrossHead:
        """Return a frozen copy of the head with its present weights, cut in two.

        Raises:
            DetectorError: if the architecture has no dense head that can be cut.
        """
        head = self._cross_head()
        if head is None:
            raise DetectorError(
                f"{self.architecture} has no dense head that could read another detector's maps (CrossKD). "
                "Take fcos or retinanet, or another with a dense head, as the teacher."
            )
        return head

    @contextmanager
    def counting_positives(self) -> Iterator[list[Tensor]]:
        """Yield a list to which each forward with targets appends the number of positives that divide its losses.

        Trainings on several processes need the number, since each process divides by the positives of its own images.
        The list stays empty if the losses are means over images.
        """
        yield []

    def plain_state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the weights, on the CPU, that loads in the framework's plain model."""
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

    def translated(self, weights: dict[str, Tensor], where: Path, *, new_head: bool = False) -> dict[str, Tensor]:
        """Return weights of a file as this detector's plain model has them: names of today, the data set's classes.

        Args:
            weights: name -> tensor, without a wrapper's prefix; it may be of another model.
            where: the file, for errors.
            new_head: whether layers that depend on the classes keep the weights that they have.

        Raises:
            DetectorError: if its classes cannot be matched with the detector's.
        """
        return weights

    def misfit_advice(self, weights: Mapping[str, Tensor]) -> str:
        """Return sentences on what to do about weights that do not fit the plain model.

        Args:
            weights: name -> tensor, as ``translated`` returns them.
        """
        return (
            "Set architecture, backbone, fpn_channels, head_convs and the image size as they were when the checkpoint "
            "was made, and use a data set with the same classes."
        )

    # ------------------------------------------------------------------------------------ for adapters

    def _choose_memory_format(self) -> None:
        """Lay the weights out as ``memory_format_of`` says; an adapter calls it once its ``model`` is there."""
        self.memory_format = memory_format_of(self.model, next(self.model.parameters()).device)
        # Weights too: torch runs a convolution channels-last if either its input or its weight is laid out so.
        self.model.to(memory_format=self.memory_format)

    def _cross_head(self) -> CrossHead | None:
        """Return a new frozen copy of the head, or None."""
        return None

    def _own_head(self, module: nn.Module | None) -> CrossHead | None:
        """Return ``_cross_head``, made anew only if the weights of ``module``, the head, have changed or moved."""
        if module is None:
            return None
        # ``_version`` counts the in-place changes of a tensor, such as an optimizer's steps or a loaded state dict; a
        # tensor that replaces another one has its own id, and one that moved its own device.
        state = [(id(value), value._version, value.device) for value in module.parameters()]
        if self._kept_head is None or self._kept_head[0] != state:
            head = self._cross_head()
            self._kept_head = None if head is None else (state, head)
        return self._kept_head[1] if self._kept_head is not None else None

    @contextmanager
    def _blaming_nan(self, holder: HoldsMaps) -> Iterator[None]:
        """Turn the many errors by which a matching of boxes meets NaN into one ``NonFiniteError``."""
        try:
            yield
        except (ValueError, RuntimeError, IndexError, AssertionError) as error:
            weights = (parameter for parameter in self.parameters())
            if all(bool(torch.isfinite(value).all()) for value in (*holder.maps, *weights)):
                raise
            raise NonFiniteError(
                f"{self.architecture}: maps or weights hold NaN or infinity, so there is no loss. Lower the learning "
                "rate or the distiller's weight, or clip the gradient."
            ) from error

    @contextmanager
    def _repeatable_draws(self, device: torch.device) -> Iterator[None]:
        """Have samplers of the loss draw from a fixed seed, except in training, and restore torch's random state."""
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
        """Refuse targets that would end in a wrong loss, or in an index error deep inside the framework.

        Numbers that were checked on the host are not read again: a GPU would have to be waited for.
        """
        if len(targets) != num_images:
            raise DetectorError(f"{len(targets)} targets were given for {num_images} images; give one an image.")
        for index, target in enumerate(targets):
            if target["boxes"].shape != (len(target["labels"]), 4):
                raise DetectorError(
                    f"targets[{index}] has boxes of shape {tuple(target['boxes'].shape)} and "
                    f"{len(target['labels'])} labels; boxes are (n, 4) for n labels, (0, 4) where there are none."
                )
        if isinstance(targets, CheckedTargets) and targets.num_classes <= self.num_classes:
            return [{"boxes": target["boxes"], "labels": target["labels"]} for target in targets]
        boxes_n4 = torch.cat([target["boxes"] for target in targets])
        labels_n = torch.cat([target["labels"] for target in targets])
        wrong_n = wrong_targets(boxes_n4, labels_n, self.num_classes)
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


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set a module to evaluation mode within the context, and give each submodule its own mode back.

    ``module.train()`` afterwards would be wrong: some submodules may be frozen in evaluation mode.
    """
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
