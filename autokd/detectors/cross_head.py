"""The maps that a frozen head takes, checked: shared by all frameworks with dense heads.

Legend: H x W cells of a level.
"""

from __future__ import annotations

from collections.abc import Mapping

from autokd.detector_outputs import HeadMaps
from autokd.errors import DetectorError


def check_head_maps(head_maps: HeadMaps, strides: Mapping[str, int], input_size_px: tuple[int, int]) -> None:
    """Check that maps have the levels of a frozen head, and that their cells cover its input.

    Args:
        head_maps: level name -> maps of the class branch and of the box branch.
        strides: level name -> pixels of the network's input per cell, for the levels of the head.
        input_size_px: (height, width) of the padded input.

    Raises:
        DetectorError: if a level is missing or unknown, or a map has another number of cells than its level.
    """
    if set(head_maps) != set(strides):
        raise DetectorError(
            f"the frozen head takes maps of the levels {', '.join(strides)} and got "
            f"{', '.join(head_maps) or 'none'}. Pair detectors whose heads look at the same levels."
        )
    for level, (_, map_BCHW) in head_maps.items():
        expected = tuple(-(-side // strides[level]) for side in input_size_px)
        if tuple(map_BCHW.shape[-2:]) != expected:
            raise DetectorError(
                f"the frozen head got a map of {tuple(map_BCHW.shape[-2:])} cells at {level}; for an input of "
                f"{tuple(input_size_px)} pixels at stride {strides[level]} it takes {expected}. Resize it first."
            )
