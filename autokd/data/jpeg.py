"""JPEG files by torchvision's decoder: the pixels of Pillow's, whose library it shares, in half of the time.

It gives channels one after the other, as networks take them, and works without Python's lock, so that threads decode
beside each other.

Legend: C = 3 channels (RGB); sizes are (height, width) in pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torchvision.io  # noqa: F401 - registers the operator
from numpy.typing import NDArray

from autokd.data.geometry import Size

_BEGIN, _END, _TAIL_BYTES = b"\xff\xd8\xff", b"\xff\xd9", 4096
_UNCHANGED = 0
"""torchvision's mode that keeps the channels of the file."""


def decoded_jpeg(path: Path, frame: Size) -> NDArray[np.uint8] | None:
    """Return the pixels of a JPEG file that has its frame's size as stored.

    Args:
        path: the image file.
        frame: size in the JSON.

    Returns:
        (C, *frame) uint8; None if Pillow has to read the file: it is none of these, is broken or cut short, has four
        channels, or torchvision has no such decoder.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_BEGIN)) != _BEGIN:
                return None
            file.seek(0)
            data = np.fromfile(file, dtype=np.uint8)
    except OSError:
        return None
    # Of a file that is cut short this decoder makes gray pixels, and Pillow an error.
    if _END not in data[-_TAIL_BYTES:].tobytes():
        return None
    try:
        # The operator itself: the function around it warns at each call that it will move to torchcodec.
        decoded_CHW = torch.ops.image.decode_jpeg(torch.from_numpy(data), _UNCHANGED, False)
    except (RuntimeError, AttributeError, TypeError):
        return None
    channels, *size = decoded_CHW.shape
    if channels not in (1, 3) or tuple(size) != frame:
        return None
    return np.asarray(decoded_CHW.expand(3, *size).contiguous().numpy())
