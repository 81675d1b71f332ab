"""Feature maps of the pyramid: whole, parts of it, and regions of boxes."""

from __future__ import annotations

from autokd.spec.operator import REGIONS, Operator, Parameter

_MODULE = "autokd.distill.sources.maps"

OWN_LEVEL = Parameter(
    "own_level", 0, 0, 1,
    "1: a box covers cells of the level of its size alone (floor(log2(side / 56 px)), counted from the finest paired "
    "level), 0: of every level",
    omitted_at_default=True,
)  # fmt: skip

REGION_WEIGHTS = Parameter(
    "region_weights", 0, 0, 2,
    "weights of the regions in means, 1: greatest where student and teacher are nearest, 2: where they are farthest "
    "(disparity, RDD, arXiv:2308.10308), 0: equal",
    omitted_at_default=True,
)  # fmt: skip

ROWS: tuple[Operator, ...] = (
    Operator(
        "feature_map", "source", f"{_MODULE}:FeatureMap",
        formula="F", meaning="every cell of the map, with equal weights",
        paper="FitNet, arXiv:1412.6550", needs_taps=("fpn",), by_level=True,
    ),
    Operator(
        "foreground", "source", f"{_MODULE}:Foreground",
        formula="F|fg", meaning="the cells inside ground-truth boxes",
        paper="FGD, arXiv:2111.11837, eq. 2", needs_taps=("fpn",), by_level=True,
    ),
    Operator(
        "background", "source", f"{_MODULE}:Background",
        formula="F|bg", meaning="the cells outside all ground-truth boxes",
        paper="FGD, arXiv:2111.11837, eq. 2", needs_taps=("fpn",), by_level=True,
        parameters=(OWN_LEVEL,),
    ),
    Operator(
        "foreground_background", "source", f"{_MODULE}:ForegroundBackground",
        formula="F by 1/|box|, {background}/|bg|",
        meaning=(
            "every cell; the cells of a box have weights that sum to 1, the cells outside all boxes weights that "
            "sum to `background`"
        ),
        paper="FGD, arXiv:2111.11837, section 3.1", needs_taps=("fpn",), by_level=True,
        parameters=(Parameter("background", 0.5, 0.01, 10.0, "sum of the background's weights, where a box has 1"),),
    ),
    Operator(
        "instance", "source", f"{_MODULE}:Instance",
        formula="RoI{size}(F)",
        meaning=(
            "RoIAlign of each ground-truth box, each cell the mean of all that it covers; a region is a sample"
        ),
        paper="G-DetKD, arXiv:2108.07482, section 3.1", needs_taps=("fpn",), by_level=True, gives=REGIONS, side="size",
        parameters=(Parameter("size", 4, 1, 14, "cells of a region, per side"), REGION_WEIGHTS),
    ),
    Operator(
        "foreground_map", "source", f"{_MODULE}:ForegroundMap",
        formula="F/|box| in fg, 0 in bg",
        meaning="the map times 1 / (cells of its box), 0 outside all boxes; every cell counts",
        paper="DetKDS, ICML 2024 (released code)", needs_taps=("fpn",), by_level=True,
    ),
    Operator(
        "background_map", "source", f"{_MODULE}:BackgroundMap",
        formula="F/|bg| in bg, 0 in fg",
        meaning="the map times 1 / (cells outside all boxes), 0 in boxes; every cell counts",
        paper="DetKDS, ICML 2024 (released code)", needs_taps=("fpn",), by_level=True,
    ),
)  # fmt: skip
