"""The one contract between detectors and everything else.

Legend: B images, C channels, H x W cells of a level, A candidate boxes of an image, K classes, R proposals of an
image, E bins of an edge's distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from autokd.errors import DetectorError

PYRAMID_TAP = "fpn"
TAPS = (PYRAMID_TAP, "class_logits", "boxes", "proposals", "edge_logits", "head_maps", "head")
"""Names of what a detector may expose; ``fpn`` is the pyramid, one map a level."""

HeadMaps = Mapping[str, tuple[Tensor, Tensor]]
"""Level name -> (map of the class branch, map of the box branch), both (B, C, H, W)."""


class CrossHead(Protocol):
    """A dense head cut in two inside its branches, its weights frozen: it can judge maps of another detector.

    CrossKD, arXiv:2306.11369, section 3.2.
    """

    def begin(self, pyramid: Mapping[str, Tensor]) -> HeadMaps:
        """The maps at the cut."""
        ...

    def finish(self, head_maps: HeadMaps, input_size_px: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(B, A, K) class logits and (B, A, 4) decoded boxes, in the order of the detector's own taps."""
        ...


@dataclass(frozen=True, eq=False)
class DetectorOutputs:
    """What one forward of a detector gives: taps and, where targets were given, losses.

    pyramid: level name -> (B, C, H, W), fine to coarse. strides: level name -> pixels of the network's
    input per cell. class_logits: (B, A, K) before sigmoid or softmax. boxes: (B, A, 4) decoded xyxy pixels
    of the network's input. losses: name -> scalar task loss. What a detector does not have is None.
    """

    pyramid: Mapping[str, Tensor]
    strides: Mapping[str, int]
    class_logits: Tensor | None = None
    boxes: Tensor | None = None
    losses: Mapping[str, Tensor] | None = None
    image_size_px: tuple[int, int] | None = None
    """(height, width) of the network's input, padding included; None: finest map's size times its stride."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """Taps of particular detectors that are not among ``TAPS``, by name."""
    proposals: Tensor | None = None
    """(B, R, 4) xyxy pixels: where the detector itself sees objects, best first; rows of NaN fill up. No gradient."""
    edge_logits: Tensor | None = None
    """(B, A, 4, E): logits of the distributions over distances to the left, top, right and bottom edge."""
    head_maps: HeadMaps | None = None
    """Maps inside the branches of a dense head, where a ``CrossHead`` is cut."""
    head: CrossHead | None = None
    """The detector's own head, cut in two and frozen: a teacher's, for CrossKD."""

    def __post_init__(self) -> None:
        if list(self.pyramid) != list(self.strides):
            raise DetectorError(
                f"pyramid has the levels {list(self.pyramid)} and strides {list(self.strides)}: "
                "give one stride for each level, in the same order (fine to coarse)."
            )
        for level, map_BCHW in self.pyramid.items():
            if map_BCHW.ndim != 4:
                raise DetectorError(
                    f"pyramid[{level!r}] has shape {tuple(map_BCHW.shape)}; a level is "
                    "(batch, channels, height, width)."
                )

    @property
    def input_size_px(self) -> tuple[int, int]:
        """(height, width) of the network's input in pixels."""
        if self.image_size_px is not None:
            return self.image_size_px
        level = next(iter(self.pyramid))
        height, width = self.pyramid[level].shape[-2:]
        return height * self.strides[level], width * self.strides[level]

    @property
    def task_loss(self) -> Tensor | None:
        """Sum of the task losses, or None where the forward had no targets."""
        if not self.losses:
            return None
        first, *rest = self.losses.values()
        return sum(rest, start=first)

    def taps(self) -> tuple[str, ...]:
        """Names of the taps that are present."""
        present = ["fpn"] if self.pyramid else []
        present += [name for name in TAPS[1:] if getattr(self, name) is not None]
        return (*present, *self.extras)
