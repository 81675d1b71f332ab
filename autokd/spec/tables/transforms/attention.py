"""Attention that each side makes for itself."""

from __future__ import annotations

from autokd.spec.operator import Operator, Parameter, effects

_MODULE = "autokd.distill.transforms.attention"
_SHARPNESS = Parameter("temperature", 0.5, 0.01, 100.0, "divides the magnitudes before the softmax; smaller is sharper")

ROWS: tuple[Operator, ...] = (
    Operator(
        "spatial_attention", "transform", f"{_MODULE}:SpatialAttention", group="attention",
        formula="x * N softmax_s(mean_c|x| / {temperature})",
        meaning="each cell times its softmax over the cells' mean magnitudes",
        paper="FGD, arXiv:2111.11837, section 3.1",
        parameters=(_SHARPNESS,),
        adds=effects("cell_scale"), gives_same=True, compares_cells=True,
    ),
    Operator(
        "channel_attention", "transform", f"{_MODULE}:ChannelAttention", group="attention",
        formula="x * (C softmax_c(mean_s|x| / {temperature}))^{exponent}",
        meaning="each channel times its softmax over the channels' mean magnitudes",
        paper="FGD, arXiv:2111.11837, section 3.1",
        parameters=(
            _SHARPNESS,
            Parameter("exponent", 1.0, 0.1, 2.0, "power of the factor; DetKDS's is 0.5", omitted_at_default=True),
        ),
        adds=effects("sample_channel_scale"), keeps=effects("sample_channel_affine"), gives_same=True,
    ),
)  # fmt: skip
