"""Energies: the size of the features at a cell or in a channel, and their softmax."""

from __future__ import annotations

from autokd.spec.operator import SCALAR_MAP, Operator, Parameter, effects

_MODULE = "autokd.distill.transforms.energies"
_POWER = Parameter("power", 1, 1, 2, "1 for |x|, 2 for x^2")
_SHARPNESS = Parameter("temperature", 0.5, 0.01, 100.0, "divides the magnitudes before the softmax; smaller is sharper")

ROWS: tuple[Operator, ...] = (
    # On a map of one positive number a cell, every change is one of the cells' scale.
    Operator(
        "channel_mean", "transform", f"{_MODULE}:ChannelMean",
        formula="mean_c |x|^{power}", meaning="mean over the channels of |x| or x^2, one number a cell",
        paper="AT, arXiv:1612.03928, section 3.1", gives=SCALAR_MAP, parameters=(_POWER,),
        keeps=effects("cell_scale", "grouping"),
    ),
    Operator(
        "cell_mean", "transform", f"{_MODULE}:CellMean",
        formula="mean_s |x|^{power}", meaning="mean over the cells of |x| or x^2, one number a channel",
        paper="FGD, arXiv:2111.11837, section 3.1", gives=SCALAR_MAP, parameters=(_POWER,),
        keeps=effects("cell_scale"),
    ),
    Operator(
        "spatial_softmax", "transform", f"{_MODULE}:SpatialSoftmax",
        formula="N softmax_s(x / {temperature})", meaning="softmax over the cells, scaled to mean 1",
        paper="FGD, arXiv:2111.11837, section 3.1", takes=(SCALAR_MAP,), gives_same=True, compares_cells=True,
        parameters=(_SHARPNESS,), min_cells=2,
    ),
)  # fmt: skip
