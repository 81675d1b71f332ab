"""The key of a teacher's cache: what it stores, in which precision, and what that depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from autokd.detector_outputs import PYRAMID_TAP, TAP_TABLE, taps_where
from autokd.errors import DataError
from autokd.files import digest_of

FORMAT_VERSION = 3
LEVEL_PREFIX = "level."
SCALES = ".scales"
"""End of the name of the array with the scales of an int8 array."""
STORED_TAPS = tuple(tap.name for tap in TAP_TABLE if tap.stored_as is not None)
(HELD_TAP,) = taps_where(is_per_image=False)
"""The one tap that is the same for all images: it is held in memory."""
_EXACT_TAPS = taps_where(stored_as="float32")


def dtype_of(array: str, dtype: str = "float16") -> np.dtype[Any]:
    """Return the number format of an array ("level.p3", "boxes", ...), if all but the exact taps are of ``dtype``."""
    return np.dtype("float32" if array in _EXACT_TAPS or array.endswith(SCALES) else dtype)


def stored_taps(wanted: Iterable[str]) -> tuple[str, ...]:
    """Return the taps among ``wanted`` that are stored per image, sorted."""
    return tuple(sorted(set(wanted) & set(STORED_TAPS)))


@dataclass(frozen=True)
class CacheKey:
    """Everything that cached taps depend on.

    Attributes:
        teacher_digest: digest of the teacher's weights, or of its checkpoint.
        teacher_config: text of its structure.
        dataset_fingerprint: digest of images and annotations.
        plan_digest: digest of the views.
        image_size_px: height and width of the network's input.
        taps: names of the taps, all of them among ``STORED_TAPS``.
        dtype: number format of all taps but boxes: float16, int8, or float32.
        version: version of the files' format.
        part: digest of the views that are held; empty: all views of the plan.
    """

    teacher_digest: str
    teacher_config: str
    dataset_fingerprint: str
    plan_digest: str
    image_size_px: tuple[int, int]
    taps: tuple[str, ...] = (PYRAMID_TAP,)
    dtype: str = "float16"
    version: int = FORMAT_VERSION
    part: str = ""

    def __post_init__(self) -> None:
        if unknown := set(self.taps) - set(STORED_TAPS):
            raise DataError(
                f"the taps {', '.join(sorted(unknown))} are not stored per image; those that are: "
                f"{', '.join(STORED_TAPS)}. Take ``stored_taps`` of those that are wanted."
            )

    @property
    def folder_name(self) -> str:
        """Digest of all fields, by which the cache's folder is named."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if not self.part:  # caches of whole plans keep the names that they had before there were parts
            del fields["part"]
        return digest_of(**fields)
