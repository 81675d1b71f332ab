"""Bands of spatial frequencies of a map."""

from __future__ import annotations

from autokd.spec.operator import Operator, Parameter, effects

_MODULE = "autokd.distill.transforms.frequencies"

ROWS: tuple[Operator, ...] = (
    Operator(
        "haar_band", "transform", f"{_MODULE}:HaarBand", group="scale",
        formula="haar{levels},{band}(x)",
        meaning="the part of the map in the low or the high band of its Haar wavelets; both parts add up to the map",
        paper="after FreeKD, arXiv:2311.12079", gives_same=True, compares_cells=True,
        parameters=(
            Parameter("levels", 1, 1, 4, "levels of wavelets; the low band is constant on blocks of 2^levels cells"),
            Parameter("band", 2, 1, 2, "1 for the low band, 2 for the high band"),
        ),
        keeps=effects("channel_affine", "sample_channel_scale", "sample_channel_affine"),
    ),
)  # fmt: skip
