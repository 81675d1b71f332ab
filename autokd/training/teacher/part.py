"""Parts of a plan of views: those that a training shows, where it does not show all of them.

Legend: P views of a part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autokd.errors import DataError
from autokd.files import digest_of_blocks
from autokd.training.loader import Pairs


@dataclass(frozen=True, eq=False)
class Part:
    """Some views of some images, in rising order.

    Attributes:
        codes_P: image index * ``num_views`` + view number of each, int64.
        num_views: views of each image in the whole plan.
    """

    codes_P: NDArray[np.int64]
    num_views: int

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]], num_views: int) -> Part:
        """Return the part that holds given (image index, view number) pairs, each once."""
        codes = sorted({image * num_views + view for image, view in pairs})
        return cls(np.array(codes, dtype=np.int64), num_views)

    def __len__(self) -> int:
        return len(self.codes_P)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that identify the views."""
        return digest_of_blocks([f"{self.num_views} views;".encode(), self.codes_P.astype("<i8").tobytes()])

    def pairs(self) -> list[tuple[int, int]]:
        """Return (image index, view number) of each view."""
        images_P, views_P = np.divmod(self.codes_P, self.num_views)
        return list(zip(images_P.tolist(), views_P.tolist()))

    def rows(self, pairs: Pairs) -> NDArray[np.int64]:
        """Return the positions of views in this part.

        Args:
            pairs: (image index, view number) of each view.

        Raises:
            DataError: if a view is not in this part.
        """
        wanted = np.array([image * self.num_views + view for image, view in pairs], dtype=np.int64)
        rows = np.searchsorted(self.codes_P, wanted)
        found = self.codes_P[np.minimum(rows, len(self.codes_P) - 1)] == wanted
        if not found.all():
            image, view = pairs[int(np.argmin(found))]
            raise DataError(
                f"view {view} of image {image} is not among the {len(self)} views whose teacher's outputs are cached. "
                "They are those that one recipe shows under one seed: ask for the cache of the training at hand."
            )
        return rows


def num_shown_views(num_images: int, num_views: int, most_images: int) -> int:
    """Return how many different views a training shows.

    An epoch shows each image once, in a view that no other of ``num_views`` consecutive epochs shows.

    Args:
        num_images: images of an epoch.
        num_views: views of each image.
        most_images: images of the whole training, an image that comes twice counted twice.
    """
    return min(most_images, num_images * num_views)
