"""The content of a training set, as far as it decides which terms can teach."""

from __future__ import annotations

from dataclasses import dataclass

from autokd.spec import Counts


@dataclass(frozen=True, slots=True)
class DataContent:
    """Classes and objects of a training set.

    Args:
        num_classes: classes of the data set.
        objects: number of objects of each image, or an upper bound of it; in any order.
    """

    num_classes: int
    objects: tuple[int, ...]

    def counts(self, batch_size: int) -> Counts:
        """Return what a training compares.

        Args:
            batch_size: images of a batch.

        Returns:
            The classes, the objects of the fullest batch that could be drawn, and the images of a batch.
        """
        fullest = sorted(self.objects, reverse=True)[:batch_size]
        return Counts(self.num_classes, sum(fullest), batch_size)
