"""Boxes with words, drawn into a picture so that they stay visible on any of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont


def draw_box(
    canvas: Image.Image,
    box: Sequence[float],
    scale: float,
    color: tuple[int, int, int],
    words: str,
    *,
    is_dashed: bool = False,
) -> None:
    """Draw a box with words above it into a picture.

    Args:
        canvas: the picture, which is changed.
        box: xyxy px of the image as given; it is clipped to the picture.
        scale: pixels of the picture for a pixel of the image.
        color: RGB, 0 to 255.
        words: text at the upper left corner; empty: none.
        is_dashed: whether the lines are dashed.
    """
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(canvas)
    x0, y0, x1, y1 = (value * scale for value in box)
    x0, x1 = max(0.0, min(x0, x1)), min(canvas.width - 1.0, max(x0, x1))
    y0, y1 = max(0.0, min(y0, y1)), min(canvas.height - 1.0, max(y0, y1))
    if x1 < x0 or y1 < y0:
        return
    # A dark line around the colored one keeps it visible on any picture.
    _outline(draw, (x0 - 1, y0 - 1, x1 + 1, y1 + 1), (15, 23, 42), width=4, is_dashed=is_dashed)
    _outline(draw, (x0, y0, x1, y1), color, width=2, is_dashed=is_dashed)
    if words:
        _label(draw, ImageFont.load_default(size=13), (x0, y0), words, color, canvas.size)


def _outline(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    color: tuple[int, int, int],
    *,
    width: int,
    is_dashed: bool,
) -> None:
    if not is_dashed:
        draw.rectangle(box, outline=color, width=width)
        return
    x0, y0, x1, y1 = box
    dash = 5
    for x in range(int(x0), int(x1) + 1, 2 * dash):
        for y in (y0, y1):
            draw.line([(x, y), (min(x + dash, x1), y)], fill=color, width=width)
    for y_start in range(int(y0), int(y1) + 1, 2 * dash):
        for x_side in (x0, x1):
            draw.line([(x_side, y_start), (x_side, min(y_start + dash, y1))], fill=color, width=width)


def _label(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    corner: tuple[float, float],
    words: str,
    color: tuple[int, int, int],
    size: tuple[int, int],
) -> None:
    left, top, right, bottom = draw.textbbox((0, 0), words, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = min(max(0.0, corner[0]), max(0.0, size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((x, y, x + width, y + height), fill=color)
    draw.text((x + 2 - left, y + 2 - top), words, fill=(15, 23, 42), font=font)
