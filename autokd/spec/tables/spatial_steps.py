"""Transformations of Auto-KD's second kind: within the map (attention, masks, scales, patches)."""

from __future__ import annotations

from autokd.spec.operator import SCALAR_MAP, Operator, Parameter, effects

_POWER = Parameter("power", 1, 1, 2, "1: of absolute values, 2: of squares")

ROWS = (
    Operator(
        "spatial_attention", "transform", "autokd.distill.transforms.spatial:SpatialAttention", group="attention",
        formula="x * N softmax_s(mean_c|x| / {temperature})",
        meaning="each cell scaled by its share of the map's energy",
        paper="FGD, arXiv:2111.11837, eq. 3",
        parameters=(Parameter("temperature", 0.5, 0.01, 100.0, "sharpness of the attention"),),
        adds=effects("cell_scale"), gives_same=True, compares_cells=True,
    ),
    Operator(
        "channel_attention", "transform", "autokd.distill.transforms.spatial:ChannelAttention", group="attention",
        formula="x * C softmax_c(mean_s|x| / {temperature})",
        meaning="each channel scaled by its share of the map's energy",
        paper="FGD, arXiv:2111.11837, eq. 4",
        parameters=(Parameter("temperature", 0.5, 0.01, 100.0, "sharpness of the attention"),),
        adds=effects("sample_channel_scale"), keeps=effects("sample_channel_affine"), gives_same=True,
    ),
    Operator(
        "max_pool", "transform", "autokd.distill.transforms.spatial:MaxPool", group="scale",
        formula="maxpool{window}(x)", meaning="the greatest value of each window; odd edges are kept",
        paper="DetKDS, ICML 2024", parameters=(Parameter("window", 2, 2, 8, "cells per side"),),
        gives_same=True, divides_side="window", compares_cells=True,
        keeps=effects("channel_affine", "sample_channel_scale", "sample_channel_affine", "grouping"),
    ),
    Operator(
        "local_patches", "transform", "autokd.distill.transforms.spatial:LocalPatches", group="scale",
        formula="patches{grid}x{grid}(x)", meaning="the map cut into a grid; a patch is a sample",
        paper="DetKDS, ICML 2024", parameters=(Parameter("grid", 2, 2, 8, "patches per side"),),
        divides_side="grid", compares_cells=True,
        adds=effects("grouping"),
        keeps=effects("cell_scale", "channel_affine", "sample_channel_scale", "sample_channel_affine"),
        blind_to=effects("grouping"),
    ),
    # On a map of one positive number a cell, every change is one of the cells' scale.
    Operator(
        "channel_mean", "transform", "autokd.distill.transforms.energies:ChannelMean",
        formula="mean_c |x|^{power}", meaning="one number a cell: its mean energy over the channels",
        paper="AT, arXiv:1612.03928, section 3.1", gives=SCALAR_MAP, parameters=(_POWER,),
        keeps=effects("cell_scale", "grouping"),
    ),
    Operator(
        "cell_mean", "transform", "autokd.distill.transforms.energies:CellMean",
        formula="mean_s |x|^{power}", meaning="one number a channel: its mean energy over the cells",
        paper="FGD, arXiv:2111.11837, eq. 4", gives=SCALAR_MAP, parameters=(_POWER,),
        keeps=effects("cell_scale"),
    ),
)  # fmt: skip
