"""Image files as uint8 RGB: grayscale, palettes, alpha, 16 bits, EXIF rotation, truncated files.

**Frame.** Boxes refer to the frame that the JSON gives as ``width`` and ``height``:

- A file that has this size as stored is used as stored. An EXIF orientation is then ignored, as pycocotools and
  torchvision ignore it: nothing shows whether the annotators saw the image rotated (by 180 degrees or mirrored, the
  size would not even differ).
- A file that has this size only after its EXIF rotation is rotated.
- A file of another size at the same aspect ratio (to a pixel's rounding) was resized after it was annotated; it is
  scaled to the frame.
- Anything else (a crop, another image) is refused: the boxes would lie elsewhere.

Legend: sizes are (height, width) in pixels; C = 3 channels RGB.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch.nn import functional

from autokd.data.depth import DEEP_MODES, FULL_DEPTH_SHIFT, deep_values, unsupported_pixels
from autokd.data.geometry import Size
from autokd.data.jpeg import decoded_jpeg
from autokd.errors import DataError

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""Exceptions that Pillow raises on files that it cannot read."""
_TAIL_BYTES = 4096
"""Bytes at the end of a file in which its end mark is looked for; some programs append data behind it."""
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_ASPECT_TOLERANCE_PX = 1.0
_TURNS = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the turn that makes the image upright, for the orientations that exchange height and width."""

Kind = Literal["color", "gray", "alpha", "deep"]
"""Kinds of pixels: three channels, one channel, with transparency, more than 8 bits a channel."""
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Fit:
    """Steps that turn a stored image into its frame."""

    rotate: bool = False
    """Rotate as the EXIF orientation says."""
    scale: bool = False
    """Scale to the size of the frame."""


@dataclass(frozen=True, slots=True)
class Header:
    """Properties of a file that are known before its pixels are read."""

    stored_size: Size
    orientation: int
    """EXIF orientation, 1 to 8; 1: as stored."""
    kind: Kind

    @property
    def upright_size(self) -> Size:
        """Size of the image as a program shows it, rotated as its EXIF orientation says."""
        height, width = self.stored_size
        return (width, height) if self.orientation in _TURNS else (height, width)


def fit_to_frame(stored_size: Size, orientation: int, frame: Size) -> Fit | None:
    """Decide how an image becomes its frame, by the rules at the head of this module.

    Args:
        stored_size: size of the file as stored.
        orientation: EXIF orientation.
        frame: size in the JSON.

    Returns:
        The steps; None if it cannot be the annotated image.
    """
    turned = (stored_size[1], stored_size[0]) if orientation in _TURNS else None
    if stored_size == frame:
        return Fit()
    if turned == frame:
        return Fit(rotate=True)
    if _same_aspect(stored_size, frame):
        return Fit(scale=True)
    if turned is not None and _same_aspect(turned, frame):
        return Fit(rotate=True, scale=True)
    return None


def read_header(path: Path, *, decode: bool = False) -> Header:
    """Read size, orientation and kind of pixels, and check that the file is whole, without decoding it if possible.

    A JPEG or PNG is whole if its end mark is there; other formats, and files without the mark, are decoded.

    Args:
        path: the image file.
        decode: decode the file in any case. This also finds an EXIF orientation that a PNG has behind its pixels.

    Raises:
        DataError: if the file is missing or broken.
    """
    try:
        with Image.open(path) as image:
            mark = _END_MARKS.get(image.format or "")
            if decode or mark is None or mark not in _tail(path):
                image.load()
            return Header((image.height, image.width), _orientation(image), _kind(image, path))
    except _BROKEN as error:
        raise broken_image(path, error) from None


def read_peak(path: Path) -> int:
    """Return the greatest value of an image of more than 8 bits a channel.

    Args:
        path: the image file.

    Raises:
        DataError: if the file is broken, or has values beyond 16 bits.
    """
    try:
        with Image.open(path) as image:
            return int(deep_values(image, path).max())
    except _BROKEN as error:
        raise broken_image(path, error) from None


def read_pixels(path: Path, frame: Size, size: Size, deep_shift: int = FULL_DEPTH_SHIFT) -> NDArray[np.uint8]:
    """Decode an image, and scale it by an antialiased bilinear filter.

    Args:
        path: the image file.
        frame: size in the JSON.
        size: wanted size.
        deep_shift: bits by which values of more than 8 bits are reduced (``shift_of_depth``).

    Returns:
        (C, *size) uint8 RGB.

    Raises:
        DataError: if the file is missing, broken, or does not fit its frame.
    """
    if size[0] >= frame[0] and size[1] >= frame[1] and (pixels_CHW := decoded_jpeg(path, frame)) is not None:
        return _enlarged(torch.from_numpy(pixels_CHW), size)
    try:
        with Image.open(path) as image:
            header = Header((image.height, image.width), _orientation(image), _kind(image, path))
            turned = header.orientation in _TURNS and fit_to_frame(header.stored_size, 1, frame) is None
            # The JPEG decoder can halve an image for next to nothing. At twice the wanted size the filter below still
            # sees what it averages. ``draft`` takes (width, height), and must come before ``load``.
            image.draft(None, (2 * size[0], 2 * size[1]) if turned else (2 * size[1], 2 * size[0]))  # type: ignore[arg-type]
            image.load()
            # Read again: a PNG's orientation may be known only now, after its pixels.
            header = replace(header, orientation=_orientation(image))
            rgb = _to_rgb(image, path, deep_shift)
            if require_fit(path, header, frame).rotate:
                rgb = rgb.transpose(_TURNS[header.orientation])
    except _BROKEN as error:
        raise broken_image(path, error) from None
    return resized_pixels(rgb, size)


def resized_pixels(rgb: Image.Image, size: Size) -> NDArray[np.uint8]:
    """Scale an image by Pillow's antialiased bilinear filter.

    Args:
        rgb: the image.
        size: wanted size.

    Returns:
        (C, *size) uint8.
    """
    if size[0] >= rgb.height and size[1] >= rgb.width and size != (rgb.height, rgb.width):
        return _enlarged(torch.from_numpy(np.array(rgb)).permute(2, 0, 1), size)
    if (rgb.height, rgb.width) != size:
        rgb = rgb.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1))


def _enlarged(pixels_CHW: torch.Tensor, size: Size) -> NDArray[np.uint8]:
    """Scale an image that is no larger than the wanted size.

    torch has Pillow's filter with vector instructions: half of its time where it enlarges, where about one number in
    5,000 is rounded the other way. Where it reduces it is no faster.
    """
    if tuple(pixels_CHW.shape[1:]) != size:
        pixels_CHW = functional.interpolate(pixels_CHW[None], size, mode="bilinear", antialias=True)[0]
    return np.asarray(pixels_CHW.contiguous().numpy())


def broken_image(path: Path, error: BaseException) -> DataError:
    """Return the error for an image that Pillow could not read, with the remedy."""
    if not path.exists():
        return DataError(
            f"{path}: no such image. Put the file there, correct 'file_name' or the setting data.images, "
            "or remove the image from the JSON."
        )
    if isinstance(error, Image.DecompressionBombError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return DataError(
            f"{path}: the image is too large ({error}). At most {most:.0f} million pixels are read, since an image is "
            "decoded whole before it is scaled. Cut it into tiles with entries of their own in the JSON, "
            "or scale it down together with its boxes."
        )
    return DataError(
        f"{path}: the image cannot be read ({type(error).__name__}: {error}). "
        "Copy or download the file again, or remove the image from the JSON."
    )


def require_fit(path: Path, header: Header, frame: Size) -> Fit:
    """Return the steps that turn an image into its frame.

    Args:
        path: the image file, for the error.
        header: its size and orientation.
        frame: size in the JSON.

    Raises:
        DataError: if it cannot be the annotated image; the file and both sizes are named.
    """
    fit = fit_to_frame(header.stored_size, header.orientation, frame)
    if fit is not None:
        return fit
    turned = f" and EXIF orientation {header.orientation}" if header.orientation != 1 else ""
    raise DataError(
        f"{path}: the file has {header.stored_size[1]} x {header.stored_size[0]} pixels{turned}, the JSON says "
        f"{frame[1]} x {frame[0]}, which is another aspect ratio, so that its boxes cannot be placed. "
        "Put the annotated file there, or correct 'width' and 'height' if the boxes are those of this file."
    )


def _same_aspect(size: Size, frame: Size) -> bool:
    """Return whether one scale leads from one size to the other, to a pixel of rounding in the smaller one."""
    (h, w), (frame_h, frame_w) = size, frame
    scale = max(frame_h, frame_w) / max(h, w)
    tolerance = _ASPECT_TOLERANCE_PX * max(1.0, scale)
    return abs(h * scale - frame_h) <= tolerance and abs(w * scale - frame_w) <= tolerance


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, from the part of the file that is read; 1 if there is none."""
    # ``getexif`` of a PNG without EXIF before its pixels would decode the whole image.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _kind(image: Image.Image, path: Path) -> Kind:
    if image.mode == "F":
        raise unsupported_pixels(path, "floating-point")
    if image.mode in DEEP_MODES:
        return "deep"
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return "alpha"
    return "gray" if image.mode in ("1", "L") else "color"


def _to_rgb(image: Image.Image, path: Path, deep_shift: int) -> Image.Image:
    """Convert to 8-bit RGB. Alpha is dropped, as OpenCV and Pillow drop it; 16 bits lose their lowest bits."""
    if image.mode == "F":
        raise unsupported_pixels(path, "floating-point")
    if image.mode in DEEP_MODES:
        values = deep_values(image, path)
        return Image.fromarray((values >> deep_shift).clip(max=255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # Through RGBA, since Pillow warns of palettes whose transparency is given in bytes.
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def ends_with_mark(data: bytes, kind: str) -> bool:
    """Return whether a file has the end mark of its format, as a whole one has.

    Args:
        data: the file, or its end.
        kind: "JPEG" or "PNG".
    """
    return _END_MARKS[kind] in data[-_TAIL_BYTES:]


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(0, io.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        return file.read()
