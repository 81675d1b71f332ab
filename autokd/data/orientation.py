"""Two frames for the network's input: the data's own, and the same turned by a quarter for images that lie across it.

A photograph of 480 x 640 pixels fills a frame of 800 x 1333 to 80%, one of 640 x 480 to 45%. In the turned frame of
1333 x 800 the second fills 80% too, at the resolution of the first. A batch has one frame, so that its tensors have one
shape: batches are grouped by aspect ratio, as torchvision's and Detectron2's references group them.

Legend: N images; sizes are (height, width) in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autokd.data.geometry import Letterbox, Size, letterbox, letterbox_maps

Orientations = Literal["one", "two", "auto"]
"""Frames of a data set: the same for all images, or two, or two where that pays."""

LEAST_GAIN = 1.1
"""Ratio of the parts of the input that pictures fill, with two frames and with one, from which ``auto`` takes two."""

Pair = tuple[int, int]
"""(image index, view number)."""


@dataclass(frozen=True, eq=False)
class Frames:
    """The frame of each image of a split.

    Attributes:
        image_size_px: (H, W), the data's own frame.
        turned_N: whether an image is shown in the turned frame, (W, H).
    """

    image_size_px: Size
    turned_N: NDArray[np.bool_]

    @classmethod
    def one(cls, image_size_px: Size, num_images: int) -> Frames:
        """Return the same frame for every image."""
        return cls(image_size_px, np.zeros(num_images, dtype=bool))

    @classmethod
    def two(cls, image_size_px: Size, sizes_N2: NDArray[np.int64]) -> Frames:
        """Return the turned frame for images that lie across the data's own; square images keep it."""
        height, width = image_size_px
        sides_N = sizes_N2[:, 0] - sizes_N2[:, 1]
        return cls(image_size_px, sides_N * (height - width) < 0)

    @property
    def has_two(self) -> bool:
        """Whether any image is shown in the turned frame."""
        return bool(self.turned_N.any())

    @property
    def num_turned(self) -> int:
        """Images that are shown in the turned frame."""
        return int(self.turned_N.sum())

    @property
    def limits_N2(self) -> NDArray[np.int64]:
        """(height, width) of the frame of each image."""
        height, width = self.image_size_px
        return np.where(self.turned_N[:, None], [[width, height]], [[height, width]])

    def of(self, index: int) -> Size:
        """Return (height, width) of the frame of one image."""
        return turned(self.image_size_px) if self.turned_N[index] else self.image_size_px

    def letterbox(self, index: int, original_size: Size) -> Letterbox:
        """Return how an image of ``original_size`` lies in its frame."""
        return letterbox(original_size, self.of(index))

    def at_size(self, image_size_px: Size) -> Frames:
        """Return the frames of the same images at another size, which may not change which of them are turned.

        Where the other size lies across this one, or is square, the images' own sizes would decide anew; a frame of the
        same form keeps the buckets of a search and of its proxies alike.
        """
        return Frames(image_size_px, self.turned_N)


def turned(size: Size) -> Size:
    """Return a size with height and width exchanged."""
    return size[1], size[0]


def picture_share(frames: Frames, sizes_N2: NDArray[np.int64]) -> float:
    """Return the part of the network's input that pictures fill, over all images, from 0 to 1."""
    _, contents_N2 = letterbox_maps(sizes_N2, frames.limits_N2)
    height, width = frames.image_size_px
    return float(contents_N2.prod(axis=1).sum() / (len(sizes_N2) * height * width))


def gain_of_two(image_size_px: Size, sizes_N2: NDArray[np.int64]) -> float:
    """Return the ratio of the parts that pictures fill with two frames and with one; 1 if no image lies across."""
    two = Frames.two(image_size_px, sizes_N2)
    if not two.has_two:
        return 1.0
    return picture_share(two, sizes_N2) / picture_share(Frames.one(image_size_px, len(sizes_N2)), sizes_N2)


def frames_note(frames: Frames, sizes_N2: NDArray[np.int64]) -> str:
    """Return a sentence on two frames, that they are used or would be worth it; empty if neither is so."""
    height, width = frames.image_size_px
    one = picture_share(Frames.one(frames.image_size_px, len(sizes_N2)), sizes_N2)
    two = Frames.two(frames.image_size_px, sizes_N2)
    about = f"pictures fill {picture_share(two, sizes_N2):.0%} of the network's input in place of {one:.0%}"
    if frames.has_two:
        count = f"{frames.num_turned} of {len(sizes_N2)} training images"
        return f"{count} have the turned frame, {width} x {height} px: {about}"
    if gain_of_two(frames.image_size_px, sizes_N2) < LEAST_GAIN:
        return ""
    return f"with 'orientations: two' in 'data', {about}: {two.num_turned} of {len(sizes_N2)} images lie across it"


def wants_two(setting: Orientations, image_size_px: Size, sizes_N2: NDArray[np.int64]) -> bool:
    """Return whether a set has two frames.

    Args:
        setting: the setting of the configuration.
        image_size_px: (H, W) of the network's input.
        sizes_N2: sizes of the training images, which decide for all splits.
    """
    return setting == "two" or (setting == "auto" and gain_of_two(image_size_px, sizes_N2) >= LEAST_GAIN)


def grouped(pairs: Sequence[Pair], batch_size: int, turned_N: NDArray[np.bool_]) -> list[list[Pair]]:
    """Cut views into batches of one frame each, in which they keep their order.

    A batch is placed where its last image comes, so that frames alternate as the images do; the two batches that remain
    unfilled come last. With one frame these are plain chunks.

    Args:
        pairs: (image index, view number) of each view.
        batch_size: images of a batch.
        turned_N: whether an image is shown in the turned frame.
    """
    batches: list[list[Pair]] = []
    waiting: tuple[list[Pair], list[Pair]] = ([], [])
    for pair in pairs:
        bucket = waiting[int(turned_N[pair[0]])]
        bucket.append(pair)
        if len(bucket) == batch_size:
            batches.append(list(bucket))
            bucket.clear()
    return batches + [bucket for bucket in waiting if bucket]


def bucket_sizes(num_images: int, num_turned: int) -> Iterator[int]:
    """Yield the number of images of each frame that is used."""
    yield from (count for count in (num_images - num_turned, num_turned) if count)
