"""Transformations of Auto-KD's second kind: within the map (attention, masks, scales, patches)."""

from __future__ import annotations

from autokd.spec.operator import SCALAR_MAP, Operator, Parameter, effects

_SHARPNESS = Parameter("temperature", 0.5, 0.01, 100.0, "sharpness of the attention")
_POWER = Parameter("power", 1, 1, 2, "1: of absolute values, 2: of squares")

ROWS = (
    Operator(
        "spatial_attention", "transform", "autokd.distill.transforms.spatial:SpatialAttention", group="attention",
        formula="x * N softmax_s(mean_c|x| / {temperature})",
        meaning="each cell scaled by its share of the map's energy",
        paper="FGD, arXiv:2111.11837, section 3.1",
        parameters=(_SHARPNESS,),
        adds=effects("cell_scale"), gives_same=True, compares_cells=True,
    ),
    Operator(
        "channel_attention", "transform", "autokd.distill.transforms.spatial:ChannelAttention", group="attention",
        formula="x * C softmax_c(mean_s|x| / {temperature})",
        meaning="each channel scaled by its share of the map's energy",
        paper="FGD, arXiv:2111.11837, section 3.1",
        parameters=(_SHARPNESS,),
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
    Operator(
        "sample_attention", "transform", "autokd.distill.transforms.attention:SampleAttention", group="attention",
        formula="x * S softmax_b(mean_cs|x| / {temperature})",
        meaning="each sample scaled by its share of the batch's energy",
        paper="DetKDS, ICML 2024", parameters=(_SHARPNESS,), needs_batch=True, gives_same=True,
        adds=effects("cell_scale", "sample_channel_scale"), keeps=effects("sample_channel_affine"),
    ),
    Operator(
        "teacher_attention", "transform", "autokd.distill.transforms.attention:TeacherAttention", group="attention",
        formula="x sqrt(N softmax_s(mean_c|t| / {temperature}) C softmax_c(mean_s|t| / {temperature}))",
        meaning="both sides weighted by the teacher's attention",
        paper="FGD, arXiv:2111.11837, section 3.1", parameters=(_SHARPNESS,), gives_same=True,
    ),
    Operator(
        "shared_attention", "transform", "autokd.distill.transforms.attention:SharedAttention", group="attention",
        formula="x sqrt(N softmax_s(mean_c(|s| + |t|) / {temperature}) C softmax_c(mean_s(|s| + |t|) / {temperature}))",
        meaning="both sides weighted by the attention that they make together",
        paper="FBKD, ICLR 2021, section 3.1", gives_same=True,
        parameters=(Parameter("temperature", 0.1, 0.01, 100.0, "sharpness of the attention"),),
    ),
    Operator(
        "random_mask", "transform", "autokd.distill.transforms.attention:RandomMask", group="attention",
        formula="x * mask", meaning="random cells set to 0, the same on both sides",
        paper="DetKDS, ICML 2024", is_random=True, gives_same=True,
        parameters=(Parameter("drop", 0.5, 0.05, 0.95, "part of the cells that is set to 0"),),
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
        paper="FGD, arXiv:2111.11837, section 3.1", gives=SCALAR_MAP, parameters=(_POWER,),
        keeps=effects("cell_scale"),
    ),
    Operator(
        "shares", "transform", "autokd.distill.transforms.energies:Shares",
        formula="N softmax_s(x / {temperature})", meaning="each number's share of the map, 1 on average",
        paper="FGD, arXiv:2111.11837, section 3.1", takes=(SCALAR_MAP,), gives_same=True, compares_cells=True,
        parameters=(_SHARPNESS,),
    ),
    Operator(
        "masked_generation", "transform", "autokd.distill.transforms.learned:MaskedGeneration",
        formula="conv(ReLU(conv(mask * s)))", meaning="the student's map completed from random cells of it",
        paper="MGD, arXiv:2205.01529, section 3.1", gives_same=True,
        learns=True, is_random=True, zero_at_equality=False,
        parameters=(Parameter("drop", 0.65, 0.05, 0.95, "part of the cells that is left out"),),
    ),
    Operator(
        "global_context", "transform", "autokd.distill.transforms.learned:GlobalContext",
        formula="x + GC(x)", meaning="every cell with what a learned block says about the whole map, each side its own",
        paper="FGD, arXiv:2111.11837, section 3.2", gives_same=True, learns=True, zero_at_equality=False,
        adds=effects("sample_channel_affine"),
    ),
)  # fmt: skip
