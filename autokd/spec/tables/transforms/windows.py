"""Windows of a map: pooled, or cut into samples of their own."""

from __future__ import annotations

from autokd.spec.operator import MAP, Operator, Parameter, effects

_MODULE = "autokd.distill.transforms.windows"

ROWS: tuple[Operator, ...] = (
    Operator(
        "max_pool", "transform", f"{_MODULE}:MaxPool", group="scale",
        formula="maxpool{window}(x)", meaning="the maximum of each window; windows at the edge may be smaller",
        paper="DetKDS, ICML 2024",
        parameters=(
            Parameter("window", 2, 2, 8, "cells per side"),
            Parameter("zero_edge", 0, 0, 1, "1: windows at the edge are filled with zeros", omitted_at_default=True),
        ),
        gives_same=True, divides_side="window", compares_cells=True,
        keeps=effects("channel_affine", "sample_channel_scale", "sample_channel_affine", "grouping"),
    ),
    Operator(
        "local_patches", "transform", f"{_MODULE}:LocalPatches", group="scale",
        formula="patches{grid}x{grid}(x)", meaning="the map cut into a grid of patches; each patch becomes a sample",
        paper="DetKDS, ICML 2024", parameters=(Parameter("grid", 2, 2, 8, "patches per side"),),
        divides_side="grid", compares_cells=True, own_samples=True,
        adds=effects("grouping"),
        keeps=effects("cell_scale", "channel_affine", "sample_channel_scale", "sample_channel_affine"),
        blind_to=effects("grouping"),
    ),
    Operator(
        "cell_patches", "transform", f"{_MODULE}:CellPatches",
        formula="patches of {side}x{side}(x)",
        meaning="the map cut into patches of equal size, filled with zeros at the edge; each patch becomes a sample",
        paper="DetKDS, ICML 2024 (released code)",
        parameters=(Parameter("side", 4, 2, 16, "cells of a patch, per side"),),
        takes=(MAP,), compares_cells=True,
        adds=effects("grouping"),
        keeps=effects("cell_scale", "channel_affine", "sample_channel_scale", "sample_channel_affine"),
        blind_to=effects("grouping"),
    ),
)  # fmt: skip
