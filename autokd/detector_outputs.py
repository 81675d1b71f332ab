"""The one contract between detectors and everything else: ``DetectorOutputs``, and the table of its taps.

A tap is an intermediate output of a detector that a distiller may compare. A new one is a row of ``TAP_TABLE``, a field
of ``DetectorOutputs``, and the adapters that fill it.

Legend: B images, C channels, H x W cells of a level, A candidate boxes of an image, K classes, R proposals of an
image, E bins of an edge's distribution, L decoder layers, Q queries, P shared queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from autokd.errors import DetectorError

TapForm = Literal["levels", "tensor", "pairs", "head"]
"""``levels``: level name -> map. ``tensor``: one tensor, its first axis the images. ``pairs``: level name -> two maps.
``head``: a ``CrossHead``."""


@dataclass(frozen=True, slots=True)
class Tap:
    """A tap: an intermediate output that a detector may expose.

    Args:
        name: the name that operators ask for; also the field of ``DetectorOutputs`` (of ``fpn``: ``pyramid``).
        form: what its value is.
        is_default: whether a forward gives it unasked, since the heads have computed it anyway.
        needs_head: whether the heads must run for it.
        is_per_image: whether it differs from image to image; the others belong to a detector as a whole.
        stored_as: NumPy type in which a teacher's is stored for all images, where ``float16`` gives way to the type
            that a cache is asked for; None: it is not stored, since it is read of students only, or is not per image.
        is_by_candidate: whether row r belongs to candidate r, so that it is compared row by row, which needs matching
            prediction layouts (``autokd.detectors.candidates``).
    """

    name: str
    form: TapForm = "tensor"
    is_default: bool = False
    needs_head: bool = True
    is_per_image: bool = True
    stored_as: Literal["float16", "float32"] | None = None
    is_by_candidate: bool = False


TAP_TABLE = (
    Tap("fpn", form="levels", is_default=True, needs_head=False, stored_as="float16"),
    Tap("class_logits", is_default=True, stored_as="float16", is_by_candidate=True),
    # The 11 significant bits of float16 would round pixels beyond 2048 to even ones, and edges of small boxes to
    # sixteenths.
    Tap("boxes", is_default=True, stored_as="float32", is_by_candidate=True),
    Tap("proposals"),
    Tap("edge_logits", stored_as="float16", is_by_candidate=True),
    Tap("layer_edge_logits"),
    Tap("shared_logits", stored_as="float16"),
    Tap("shared_boxes", stored_as="float32"),
    Tap("head_maps", form="pairs"),
    Tap("head", form="head", needs_head=False, is_per_image=False),
)
"""Every tap, the pyramid first."""

TAPS = tuple(tap.name for tap in TAP_TABLE)
"""Names of what a detector may expose; ``fpn`` is the pyramid, one map a level."""
PYRAMID_TAP = TAPS[0]
"""The tap that every detector has, and every forward gives."""


def taps_where(**facts: object) -> tuple[str, ...]:
    """Return the names of the taps whose fields have the given values, in the order of the table.

    Args:
        facts: field of ``Tap`` -> value, as in ``taps_where(form="tensor", needs_head=True)``.
    """
    return tuple(tap.name for tap in TAP_TABLE if all(getattr(tap, name) == fact for name, fact in facts.items()))


HeadMaps = Mapping[str, tuple[Tensor, Tensor]]
"""Level name -> (map of the class branch, map of the box branch), both (B, C, H, W)."""


class CrossHead(Protocol):
    """A dense head with frozen weights, cut in two inside its branches: it predicts from maps of another detector.

    CrossKD, arXiv:2306.11369, section 3.2.
    """

    def begin(self, pyramid: Mapping[str, Tensor]) -> HeadMaps:
        """Return the maps at the cut, level by level.

        Args:
            pyramid: level name -> (B, C, H, W), of the head's own detector.
        """
        ...

    def finish(self, head_maps: HeadMaps, input_size_px: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return (B, A, K) class logits and (B, A, 4) boxes in pixels, in the order of the detector's own taps.

        Args:
            head_maps: maps at the cut, of this detector or of another one with the same levels.
            input_size_px: (height, width) of the padded input that the maps describe.
        """
        ...


@dataclass(frozen=True, eq=False)
class DetectorOutputs:
    """Result of one forward of a detector: taps and, if targets were given, losses.

    A tap that was not asked for, or that the detector does not have, is None.

    Args:
        pyramid: level name -> (B, C, H, W), fine to coarse.
        strides: level name -> pixels of the network's input per cell, in the same order.
        class_logits: (B, A, K) before sigmoid or softmax.
        boxes: (B, A, 4) decoded xyxy pixels of the network's input.
        losses: name -> scalar task loss.

    Raises:
        DetectorError: if pyramid and strides differ in their levels, or a level is no (B, C, H, W).
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
    """(B, R, 4) xyxy pixels: the detector's own guesses at objects, best first, then rows of NaN. No gradient."""
    edge_logits: Tensor | None = None
    """(B, A, 4, E): logits of the distributions over distances to the left, top, right and bottom edge."""
    layer_edge_logits: Tensor | None = None
    """(B, L, Q, 4, E): ``edge_logits`` after each of L decoder layers that has them, the last one included."""
    shared_logits: Tensor | None = None
    """(B, P, K): class logits of a decoder's queries for P reference boxes that are the same for every detector."""
    shared_boxes: Tensor | None = None
    """(B, P, 4): their decoded boxes, xyxy pixels of the network's input."""
    head_maps: HeadMaps | None = None
    """Maps inside the branches of a dense head, at the place where a ``CrossHead`` is cut: before an activation."""
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
        """Sum of the task losses; None if the forward had no targets."""
        if not self.losses:
            return None
        first, *rest = self.losses.values()
        return sum(rest, start=first)

    def taps(self) -> tuple[str, ...]:
        """Return the names of the taps that are present."""
        present = ["fpn"] if self.pyramid else []
        present += [name for name in TAPS[1:] if getattr(self, name) is not None]
        return (*present, *self.extras)
