"""Names of the levels of a pyramid by their strides."""

from __future__ import annotations

import math
from collections.abc import Sequence


def level_names(strides: Sequence[int]) -> dict[str, int]:
    """Name a stride of 8 ``p3``, as in the papers; number the levels if strides are no distinct powers of two.

    Args:
        strides: pixels of the network's input per cell, fine to coarse.

    Returns:
        Name of a level -> its stride, in the same order.
    """
    powers = [math.log2(stride) for stride in strides]
    if len(set(strides)) == len(strides) and all(power.is_integer() for power in powers):
        return {f"p{int(power)}": stride for power, stride in zip(powers, strides)}
    return {f"level{index}": stride for index, stride in enumerate(strides)}
