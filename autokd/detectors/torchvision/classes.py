"""Rows of a checkpoint's head: which of its classes are the data set's, by name where names are known.

torchvision's detectors have a row for the background, which FCOS and RetinaNet never use, and its COCO weights a row
for each of 91 category ids, some without a class.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

from autokd.detectors.labels import class_order
from autokd.errors import DetectorError

logger = logging.getLogger(__name__)

_NAMELESS = ("__background__", "N/A")


@cache
def coco_categories() -> tuple[str, ...]:
    """Return the names of the 91 rows of torchvision's COCO weights, as their own meta data states them."""
    return tuple(FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"])


@dataclass(frozen=True)
class HeadClasses:
    """What is known of the classes of a data set and of a checkpoint.

    Attributes:
        num_classes: classes of the data set, without a background.
        names: their names; None: the checkpoint's rows are taken to be in their order.
        stated: names of the checkpoint's classes in its order, as the configuration states them.
        has_background: whether the head itself needs a row for the background, as that of two stages does.
    """

    num_classes: int
    names: tuple[str, ...] | None
    stated: tuple[str, ...] | None
    has_background: bool

    def rows(self, num_rows: int, where: str) -> tuple[int, ...]:
        """Return for each class of the data set its row in a head of ``num_rows`` rows.

        Raises:
            DetectorError: if they cannot be matched; the message says what can be done.
        """
        behind_background = tuple(range(1, self.num_classes + 1))
        if self.stated is not None and self.names is not None:
            return self._by_name(self._of_all_rows(self.stated, num_rows, where), where)
        if self.has_background and num_rows == self.num_classes + 1 and not self._are_cocos(num_rows):
            return behind_background
        if num_rows == self.num_classes and not self.has_background and not self._are_cocos(num_rows):
            return tuple(range(num_rows))
        if num_rows == self.num_classes + 1 and not self._are_cocos(num_rows):
            logger.info("%s: the first of %d classes is taken for an unused background.", where, num_rows)
            return behind_background
        if num_rows == len(coco_categories()) and self.names is not None:
            return self._by_name(coco_categories(), where)
        raise DetectorError(
            f"{where}: its head has {num_rows} classes, a background included if it has one; the data set has "
            f"{self.num_classes}. State the classes of the checkpoint in its order as 'classes', or start a new head "
            "with 'new_head: true' and train it."
        )

    def _are_cocos(self, num_rows: int) -> bool:
        """Return whether a head is as long as COCO's and the data set's classes are among COCO's."""
        categories = coco_categories()
        return num_rows == len(categories) and self.names is not None and set(self.names) <= set(categories)

    def _of_all_rows(self, stated: Sequence[str], num_rows: int, where: str) -> tuple[str, ...]:
        if len(stated) == num_rows:
            return tuple(stated)
        if len(stated) == num_rows - 1:
            return (_NAMELESS[0], *stated)
        raise DetectorError(
            f"{where}: 'classes' states {len(stated)} names, but the head has {num_rows} classes. State one for each, "
            "with or without a background in front."
        )

    def _by_name(self, names: Sequence[str], where: str) -> tuple[int, ...]:
        assert self.names is not None
        row_of = {name: row for row, name in enumerate(names) if name not in _NAMELESS}
        known = [name for name in names if name not in _NAMELESS]
        return tuple(row_of[known[k]] for k in class_order(known, self.names, where))
