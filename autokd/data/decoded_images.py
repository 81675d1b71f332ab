"""The decoded images of a small split, made once on a machine and shared by its processes.

Legend: N images, C = 3 channels (RGB), H x W pixels of the network's input.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autokd.data.array_store import obtain_arrays

DECODED_FOLDER = "decoded_images"
_VERSION = 1
_MOST_THREADS = 8


def obtain_images(
    cache_dir: Path,
    key: str,
    num_images: int,
    image_size_px: tuple[int, int],
    decode_into: Callable[[int, Tensor], None],
) -> Tensor:
    """Return the images of a split, decoded and letterboxed; decode them if the cache has none of this content.

    Args:
        cache_dir: folder of the cache.
        key: digest of everything that the pixels depend on.
        num_images: images of the split.
        image_size_px: (H, W) of the network's input.
        decode_into: writes one image's pixels into a (C, H, W) canvas; called by several threads.

    Returns:
        (N, C, H, W) uint8, mapped into memory and shared with the machine's other processes: nothing may write to it.

    Raises:
        DataError: if an image cannot be read.
    """

    def decode_all() -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        images_NCHW = torch.empty((num_images, 3, *image_size_px), dtype=torch.uint8)
        # Pillow decodes without holding Python's lock.
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
            for _ in pool.map(lambda index: decode_into(index, images_NCHW[index]), range(num_images)):
                pass
        return {"images": images_NCHW.numpy()}, {}

    stored = obtain_arrays(cache_dir / DECODED_FOLDER / key, _VERSION, decode_all)
    with warnings.catch_warnings():
        # torch has no read-only tensors, and says so.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(stored.arrays["images"]))
