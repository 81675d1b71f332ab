"""Energies: the size of the features at a cell or in a channel, and their softmax."""

from __future__ import annotations

from autokd.spec.operator import SCALAR_MAP, Operator, Parameter, effects

_MODULE = "autokd.distill.transforms.energies"
_POWER = Parameter("power", 1, 1, 2, "1: of absolute values, 2: of squares")
_SHARPNESS = Parameter("temperature", 0.5, 0.01, 100.0, "sharpness of the attention")

ROWS: tuple[Operator, ...] = (
    # On a map of one positive number a cell, every change is one of the cells' scale.
    Operator(
        "channel_mean", "transform", f"{_MODULE}:ChannelMean",
        formula="mean_c |x|^{power}", meaning="one number a cell: its mean energy over the channels",
        paper="AT, arXiv:1612.03928, section 3.1", gives=SCALAR_MAP, parameters=(_POWER,),
        keeps=effects("cell_scale", "grouping"),
    ),
    Operator(
        "cell_mean", "transform", f"{_MODULE}:CellMean",
        formula="mean_s |x|^{power}", meaning="one number a channel: its mean energy over the cells",
        paper="FGD, arXiv:2111.11837, section 3.1", gives=SCALAR_MAP, parameters=(_POWER,),
        keeps=effects("cell_scale"),
    ),
    Operator(
        "shares", "transform", f"{_MODULE}:SpatialSoftmax",
        formula="N softmax_s(x / {temperature})", meaning="each number's share of the map, 1 on average",
        paper="FGD, arXiv:2111.11837, section 3.1", takes=(SCALAR_MAP,), gives_same=True, compares_cells=True,
        parameters=(_SHARPNESS,),
    ),
)  # fmt: skip
