"""Images without boxes, which take part in trainings by the distillation loss alone.

Legend: B images of a batch, C = 3 channels (RGB), H x W pixels of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autokd.data.geometry import Size
from autokd.data.image_names import require_inside
from autokd.data.labeled_images import is_image
from autokd.data.network_input import network_input
from autokd.errors import DataError
from autokd.files import digest_of


@dataclass(frozen=True)
class UnlabeledImages:
    """The images of a folder and of the folders in it, in the order of their paths.

    Attributes:
        folder: the folder.
        image_size_px: (H, W) of the network's input.
        deep_shift: bits by which values of more than 8 bits are reduced (``DetectionDataset.deep_shift``).
    """

    folder: Path
    image_size_px: Size
    deep_shift: int

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Paths of the images.

        Raises:
            DataError: if there is none.
        """
        found = tuple(sorted(path for path in self.folder.rglob("*") if is_image(path)))
        if not found:
            raise DataError(
                f"data.unlabeled: found no image in {self.folder}. Give a folder with image files, or leave it out."
            )
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the names and sizes of the files."""
        return digest_of(files=[[path.relative_to(self.folder).as_posix(), path.stat().st_size] for path in self.files])

    def batch(self, num_images: int, seed: int, flip_probability: float) -> Tensor:
        """Return images drawn without regard to earlier draws, none twice unless the folder has too few.

        Args:
            num_images: B.
            seed: the images and their flips depend on it alone.
            flip_probability: probability that an image is flipped horizontally, its padding included.

        Returns:
            (B, 3, H, W) float32 in [0, 1], on the CPU.

        Raises:
            DataError: if an image is broken, or there is none.
        """
        generator = np.random.default_rng(seed)
        chosen = generator.choice(len(self.files), num_images, replace=num_images > len(self.files))
        flips = generator.random(num_images) < flip_probability
        images = [self._load(int(index)) for index in chosen]
        return torch.stack([image.flip(-1) if flip else image for image, flip in zip(images, flips, strict=True)])

    def _load(self, index: int) -> Tensor:
        return network_input(require_inside(self.files[index], self.folder), self.image_size_px, self.deep_shift).image
