"""Readers of images that are not kept in memory: on the host, or by a card's own JPEG decoder.

Legend: C = 3 channels (RGB); sizes are (height, width) in pixels.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from autokd.data.geometry import Size
from autokd.data.images import broken_image, ends_with_mark, read_pixels

logger = logging.getLogger("autokd.data")

# torchvision announces that its decoders will move to torchcodec, at each call.
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torchvision\.io")

JpegDecoder = Callable[[Tensor], Tensor]
"""Bytes of a JPEG file, (n,) uint8 on the host -> (C, H, W) uint8 on a card."""
DecodeOn = Literal["cpu", "gpu"]


class PixelReader(Protocol):
    """Reads an image, and scales it."""

    device: torch.device
    """Where the pixels are."""

    def __call__(self, path: Path, frame: Size, size: Size, deep_shift: int) -> Tensor:
        """Return (C, *size) uint8; the arguments are those of ``read_pixels``."""
        ...


class HostReader:
    """The host's decoders, in the thread that calls."""

    device = torch.device("cpu")

    def __call__(self, path: Path, frame: Size, size: Size, deep_shift: int) -> Tensor:
        """See ``PixelReader``."""
        return torch.from_numpy(read_pixels(path, frame, size, deep_shift))


class CardReader:
    """A card's JPEG decoder, and the same card's scaling; what it cannot decode is read by the host.

    Pixels differ from the host's by rounding: by a few of 255 steps.
    """

    def __init__(self, device: torch.device, decode: JpegDecoder) -> None:
        """Read nothing yet.

        Args:
            device: the card.
            decode: its decoder.
        """
        self.device = device
        self._decode = decode
        self._host = HostReader()

    def __call__(self, path: Path, frame: Size, size: Size, deep_shift: int) -> Tensor:
        """See ``PixelReader``."""
        pixels_CHW = self._decoded(path)
        # Another size is that of an image to rotate or to scale into its frame, which the host's reader does.
        if pixels_CHW is None or tuple(pixels_CHW.shape) != (3, *frame):
            return self._host(path, frame, size, deep_shift).to(self.device)
        return resampled(pixels_CHW, size, antialias=True)

    def _decoded(self, path: Path) -> Tensor | None:
        """Return the pixels as stored; None if the card cannot decode them, or the file is cut short."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise broken_image(path, error) from None
        # A decoder fills what is missing of a file with gray, and Pillow says that it is broken.
        if not data.startswith(b"\xff\xd8") or not ends_with_mark(data, "JPEG"):
            return None
        try:
            return self._decode(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        except RuntimeError:  # four channels, arithmetic coding, ...
            return None


def resampled(pixels_CHW: Tensor, size: Size, *, antialias: bool) -> Tensor:
    """Scale uint8 pixels by a bilinear filter; itself if the size is the same.

    Args:
        pixels_CHW: the pixels.
        size: wanted size.
        antialias: whether to average where the image is reduced.
    """
    if tuple(pixels_CHW.shape[1:]) == size:
        return pixels_CHW
    if pixels_CHW.device.type == "cpu":
        return functional.interpolate(pixels_CHW[None], size=size, mode="bilinear", antialias=antialias)[0]
    # Cards have no filter for whole numbers.
    scaled = functional.interpolate(pixels_CHW[None].float(), size=size, mode="bilinear", antialias=antialias)[0]
    return scaled.round_().clamp_(0, 255).to(torch.uint8)


def choose_reader(
    wanted: DecodeOn, device: torch.device, decoder_of: Callable[[torch.device], JpegDecoder]
) -> PixelReader:
    """Return the reader that a setting asks for; the host's, with a message, where the card's cannot work.

    Args:
        wanted: the setting ``runtime.decode_on``.
        device: device of the trainings.
        decoder_of: returns the card's decoder (``nvjpeg``).
    """
    if wanted == "cpu":
        return HostReader()
    if device.type != "cuda":
        logger.warning(
            "runtime.decode_on is gpu, but trainings run on the %s: images are decoded on the host.", device.type
        )
        return HostReader()
    try:
        decode = decoder_of(device)
        found = decode(torch.frombuffer(bytearray(_sample_jpeg()), dtype=torch.uint8))
        if tuple(found.shape) != (3, 16, 16):
            raise RuntimeError(f"found {tuple(found.shape)} for an image of 16 x 16 pixels")
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        logger.warning(
            "runtime.decode_on is gpu, but this torchvision does not decode JPEG files on the card (%s): images are "
            "decoded on the host. Install torchvision's build for CUDA, or set 'decode_on: cpu'.",
            reason,
        )
        return HostReader()
    return CardReader(device, decode)


def nvjpeg(device: torch.device) -> JpegDecoder:
    """Return torchvision's JPEG decoder of a card."""
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(data: Tensor) -> Tensor:
        found = decode_jpeg(data, mode=ImageReadMode.RGB, device=device)
        assert isinstance(found, Tensor), "one image, not a list"
        return found

    return decode


@cache
def _sample_jpeg() -> bytes:
    """Return a gray image of 16 x 16 pixels, on which a decoder is tried."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (128, 128, 128)).save(file, "JPEG")
    return file.getvalue()
