"""The same image with the boxes of several detectors side by side, as small inline JPEGs.

Legend: n boxes; xyxy pixels of the image as given.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autokd.report.drawing import draw_box

if TYPE_CHECKING:
    from PIL import Image

PANEL_PX = 360
"""Width of a drawn picture: small images are enlarged so that boxes and words stay legible."""
IOU_THRESHOLD = 0.5
MAX_WORDS = 10
"""Number of detections above which only the false ones are labeled, since words would hide the picture."""
JPEG_QUALITY = 76

FOUND = (56, 189, 248)
FALSE = (251, 146, 60)
MISSED = (250, 250, 250)
TRUTH = (74, 222, 128)


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes of one image.

    Args:
        boxes_xyxy_px: (n, 4) corners in pixels.
        labels: (n,) labels, from 0.
        scores: (n,) scores in [0, 1]; empty for ground truth.
    """

    boxes_xyxy_px: Sequence[Sequence[float]]
    labels: Sequence[int]
    scores: Sequence[float] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.boxes_xyxy_px), len(self.labels), len(self.scores) or len(self.labels)}
        assert len(lengths) == 1, "boxes, labels and scores belong together"

    def above(self, threshold: float) -> Boxes:
        """Return the boxes with at least a score, the highest first.

        Args:
            threshold: least score, in [0, 1].
        """
        order = sorted(range(len(self.scores)), key=lambda i: -float(self.scores[i]))
        kept = [i for i in order if float(self.scores[i]) >= threshold]
        return Boxes(
            [[float(x) for x in self.boxes_xyxy_px[i]] for i in kept],
            [int(self.labels[i]) for i in kept],
            [float(self.scores[i]) for i in kept],
        )


@dataclass(frozen=True, slots=True)
class ComparisonImage:
    """A test image with its ground truth and the detections of several detectors.

    Args:
        image: path, or an array (H, W, 3) or (3, H, W), uint8 or float in [0, 1].
        truth: ground truth.
        detections: detections by the detector's name, in the order in which they are drawn.
        classes: names of the labels.
        caption: text below the pictures.
        size_px: (height, width) of the image in which boxes are given; None: the image as stored.
    """

    image: Any
    truth: Boxes
    detections: Mapping[str, Boxes]
    classes: tuple[str, ...]
    caption: str = ""
    size_px: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """Which detections are right, and the indices of the ground-truth boxes that no detection matches."""

    is_right: tuple[bool, ...]
    missed: tuple[int, ...]

    @property
    def num_right(self) -> int:
        """Number of right detections."""
        return sum(self.is_right)


@dataclass(frozen=True, slots=True)
class Panel:
    """A drawn picture: title, JPEG as a data URI, size in pixels, and counts of right, false and missed boxes."""

    title: str
    data_uri: str
    width_px: int
    height_px: int
    summary: str = field(default="")


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over union of two xyxy boxes; 0 if both are empty.

    Args:
        a: (4,) corners in pixels.
        b: (4,) corners in pixels.
    """
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    union = _area(a) + _area(b) - shared
    return shared / union if union > 0 else 0.0


def match(found: Boxes, truth: Boxes) -> Match:
    """Match each detection, the surest first, to the free ground-truth box of its class with the highest IoU >= 0.5.

    Args:
        found: detections, the highest score first.
        truth: ground truth.

    Returns:
        Which detections are right, and which ground-truth boxes were missed.
    """
    free = set(range(len(truth.labels)))
    is_right = []
    for box, label in zip(found.boxes_xyxy_px, found.labels):
        rated = [(iou(box, truth.boxes_xyxy_px[i]), -i) for i in free if int(truth.labels[i]) == label]
        best = max(rated, default=(0.0, 0))
        is_right.append(best[0] >= IOU_THRESHOLD)
        if is_right[-1]:
            free.discard(-best[1])
    return Match(tuple(is_right), tuple(sorted(free)))


def draw_panels(image: ComparisonImage, score_threshold: float) -> list[Panel]:
    """Return a picture of the ground truth and one of each detector, all of the same size.

    Args:
        image: image with ground truth and detections.
        score_threshold: least score of a detection that is drawn, in [0, 1].
    """
    photo = open_image(image.image, image.size_px)
    height, width = image.size_px or (photo.height, photo.width)
    scale = PANEL_PX / width
    photo = photo.resize((PANEL_PX, max(1, round(height * scale))))
    truth = Boxes([[float(x) for x in box] for box in image.truth.boxes_xyxy_px], [int(x) for x in image.truth.labels])
    panels = [_truth_panel(photo, truth, image.classes, scale)]
    for name, boxes in image.detections.items():
        panels.append(_detector_panel(name, photo, boxes.above(score_threshold), truth, image.classes, scale))
    return panels


def open_image(source: Any, size_px: tuple[int, int] | None = None) -> Image.Image:
    """Return an image in RGB.

    Args:
        source: path, or an array (H, W, 3) or (3, H, W), uint8 or float in [0, 1].
        size_px: (height, width) that the boxes are given in. A stored image is turned as its EXIF data say only if it
            has this size then: data sets differ in whether their boxes count the turn.
    """
    import numpy as np
    from PIL import Image, ImageOps

    if isinstance(source, (str, Path)):
        with Image.open(source) as stored:
            upright = ImageOps.exif_transpose(stored)
            fits = size_px is not None and (stored.height, stored.width) != size_px == (upright.height, upright.width)
            return _as_rgb(upright if fits else stored)
    pixels = np.asarray(source)
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] != 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.dtype != np.uint8:
        pixels = (np.clip(pixels, 0.0, 1.0) * 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def _as_rgb(photo: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB; 16-bit grayscale is scaled, since Pillow would clip it at 255."""
    if photo.mode.startswith("I"):
        photo = photo.convert("I").point(lambda value: value / 256).convert("L")
    return photo.convert("RGB")


def _truth_panel(photo: Image.Image, truth: Boxes, classes: Sequence[str], scale: float) -> Panel:
    canvas = photo.copy()
    for box, label in zip(truth.boxes_xyxy_px, truth.labels):
        draw_box(canvas, box, scale, TRUTH, _name(classes, label))
    return _panel("ground truth", canvas, f"{len(truth.labels)} objects")


def _detector_panel(
    name: str, photo: Image.Image, found: Boxes, truth: Boxes, classes: Sequence[str], scale: float
) -> Panel:
    canvas = photo.copy()
    matched = match(found, truth)
    for i in matched.missed:
        draw_box(canvas, truth.boxes_xyxy_px[i], scale, MISSED, "", is_dashed=True)
    is_crowded = len(found.labels) > MAX_WORDS
    # The surest are drawn last, so that their words lie on top.
    for i in reversed(range(len(found.labels))):
        words = f"{_name(classes, found.labels[i])} {found.scores[i]:.2f}"
        words = "" if is_crowded and matched.is_right[i] else words
        draw_box(canvas, found.boxes_xyxy_px[i], scale, FOUND if matched.is_right[i] else FALSE, words)
    false = len(found.labels) - matched.num_right
    return _panel(name, canvas, f"{matched.num_right} right, {false} false, {len(matched.missed)} missed")


def _panel(title: str, canvas: Image.Image, summary: str) -> Panel:
    stream = io.BytesIO()
    canvas.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return Panel(title, f"data:image/jpeg;base64,{encoded}", canvas.width, canvas.height, summary)


def _name(classes: Sequence[str], label: int) -> str:
    return classes[label] if 0 <= label < len(classes) else f"label {label}"


def _area(box: Sequence[float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
