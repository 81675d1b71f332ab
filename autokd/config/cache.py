"""The section ``cache``: how much of the teachers' outputs stays on disk, and in which precision."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from autokd.config.section import Section

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _number_of_bytes(value: object) -> object:
    """Return "25 GB" as a number of bytes; anything else as it is."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]?B)\s*", value)
    if found is None:
        raise ValueError(f"found {value!r}. Give a number of bytes, or a text such as 25 GB (kB, MB, GB, TB)")
    return int(float(found[1]) * _UNITS.get(found[2].upper(), 1))


Bytes = Annotated[int, BeforeValidator(_number_of_bytes), Field(ge=10**6)]


class CacheConfig(Section):
    """The cached outputs of teachers."""

    written_if_set: ClassVar[frozenset[str]] = frozenset({"max_bytes", "precision"})

    max_bytes: Bytes | None = None
    """Most bytes of all teachers' outputs in the cache folder, of other runs too, as a number or as `25 GB`. Those that
    were not used for longest are removed first, never those that a process has open. null: what the disk has."""
    precision: Literal["float16", "int8"] = "float16"
    """Number format of stored feature maps and logits; int8 has a scale for each channel of each view, takes half the
    space, and rounds to 1/254 of the channel's greatest value. Boxes are float32 in both."""
