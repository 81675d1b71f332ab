"""The one contract between detectors and everything else.

Legend: B images, C channels, H x W cells of a level, A candidate boxes of an image, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from autokd.errors import DetectorError

TAPS = ("fpn", "class_logits", "boxes")
"""Names of what a detector may expose; ``fpn`` is the pyramid, one map a level."""


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
    """Taps of particular heads (``edge_logits``, ...), by name."""

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
        present = [("fpn", bool(self.pyramid)), ("class_logits", self.class_logits is not None)]
        present += [("boxes", self.boxes is not None)]
        return (*(name for name, there in present if there), *self.extras)
