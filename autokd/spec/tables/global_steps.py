"""Transformations of Auto-KD's first kind: every number by one rule (normalise, scale, distributions)."""

from __future__ import annotations

from autokd.spec.operator import (
    CELL_DISTRIBUTION,
    CHANNEL_DISTRIBUTION,
    FEATURES,
    SCALAR_MAP,
    Operator,
    Parameter,
    effects,
)

_TEMPERATURE = Parameter("temperature", 1.0, 0.01, 100.0, "divides the logits of the softmax")

ROWS = (
    Operator(
        "standardise", "transform", "autokd.distill.transforms.global_steps:Standardise", group="normalise",
        formula="(x - mean_bs x) / std_bs x",
        meaning="each channel to mean 0 and deviation 1 over batch and cells",
        paper="PKD, arXiv:2207.02039, section 3.2", needs_batch=True,
        gives_same=True, adds=effects("channel_affine"), keeps=effects("sample_channel_affine", "grouping"),
        blind_to=effects("channel_affine"),
    ),
    Operator(
        "l2_channels", "transform", "autokd.distill.transforms.global_steps:L2Channels", group="normalise",
        formula="x / ||x||_c", meaning="each cell's vector to length 1",
        paper="DetKDS, ICML 2024",
        gives_same=True, adds=effects("cell_scale"), keeps=effects("grouping"), blind_to=effects("cell_scale"),
    ),
    Operator(
        "l2_cells", "transform", "autokd.distill.transforms.global_steps:L2Cells", group="normalise",
        formula="x / ||x||_s", meaning="each channel's map to length 1",
        paper="DetKDS, ICML 2024",
        takes=(*FEATURES, SCALAR_MAP), gives_same=True, compares_cells=True,
        adds=effects("sample_channel_scale"), keeps=effects("sample_channel_affine"),
        blind_to=effects("sample_channel_scale"),
    ),
    Operator(
        "softmax_cells", "transform", "autokd.distill.transforms.global_steps:SoftmaxCells", group="normalise",
        formula="softmax_s(x / {temperature})", meaning="each channel as a distribution over the cells",
        paper="CWD, arXiv:2011.13256, eq. 2", gives=CELL_DISTRIBUTION, compares_cells=True, parameters=(_TEMPERATURE,),
        keeps=effects("sample_channel_affine"),  # of the log-probabilities; distances compare probabilities
    ),
    Operator(
        "softmax_channels", "transform", "autokd.distill.transforms.global_steps:SoftmaxChannels", group="normalise",
        formula="softmax_c(x / {temperature})", meaning="each cell as a distribution over the channels",
        paper="DetKDS, ICML 2024", gives=CHANNEL_DISTRIBUTION, parameters=(_TEMPERATURE,),
        keeps=effects("grouping"),
    ),
)  # fmt: skip
