"""Transformations of Auto-KD's first kind: every number by one rule (normalise, scale, distributions)."""

from __future__ import annotations

from autokd.spec.operator import (
    BINARY,
    CELL_DISTRIBUTION,
    CHANNEL_DISTRIBUTION,
    FEATURES,
    LOGITS,
    SCALAR_MAP,
    Operator,
    Parameter,
    effects,
)

_TEMPERATURE = Parameter("temperature", 1.0, 0.01, 100.0, "divides the logits of the softmax")
_POSITIVE_FACTORS = effects("cell_scale", "sample_channel_scale", "position_scale", "grouping")

ROWS = (
    Operator(
        "standardise", "transform", "autokd.distill.transforms.global_steps:Standardise", group="normalise",
        formula="(x - mean_bs x) / std_bs x",
        meaning="each channel to mean 0 and deviation 1 over batch and cells",
        paper="PKD, arXiv:2207.02039, section 3.2", needs_batch=True,
        takes=(*FEATURES, SCALAR_MAP, LOGITS), gives_same=True,
        adds=effects("channel_affine"), keeps=effects("sample_channel_affine", "grouping"),
        blind_to=effects("channel_affine"),
    ),
    Operator(
        "l2_channels", "transform", "autokd.distill.transforms.global_steps:L2Channels", group="normalise",
        formula="x / ||x||_c", meaning="each cell's vector to length 1",
        paper="DetKDS, ICML 2024",
        takes=(*FEATURES, LOGITS), gives_same=True,
        adds=effects("cell_scale"), keeps=effects("grouping"), blind_to=effects("cell_scale"),
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
        "l2_samples", "transform", "autokd.distill.transforms.global_steps:L2Samples", group="normalise",
        formula="x / ||x||_b", meaning="each number's vector over the samples of the batch to length 1",
        paper="DetKDS, ICML 2024", takes=(*FEATURES, SCALAR_MAP), gives_same=True, needs_batch=True,
        adds=effects("position_scale"), blind_to=effects("position_scale"),
    ),
    Operator(
        "min_max", "transform", "autokd.distill.transforms.global_steps:MinMax", group="normalise",
        formula="(x - min_s x) / (max_s x - min_s x)", meaning="each channel of each sample to the range 0 to 1",
        paper="DetKDS, ICML 2024", takes=(*FEATURES, SCALAR_MAP), gives_same=True, compares_cells=True,
        adds=effects("sample_channel_affine"),
        blind_to=effects("channel_affine", "sample_channel_scale", "sample_channel_affine"),
    ),
    Operator(
        "power", "transform", "autokd.distill.transforms.global_steps:Power", group="normalise",
        formula="sign(x) |x|^{exponent}", meaning="great numbers made greater, signs kept",
        paper="Auto-KD, ICCV 2023", takes=(*FEATURES, SCALAR_MAP), gives_same=True,
        parameters=(Parameter("exponent", 2, 2, 3, "of the absolute value"),), keeps=_POSITIVE_FACTORS,
    ),
    Operator(
        "root", "transform", "autokd.distill.transforms.global_steps:Root", group="normalise",
        formula="sign(x) |x|^(1 / {degree})", meaning="great numbers made smaller, signs kept",
        paper="Auto-KD, ICCV 2023", takes=(*FEATURES, SCALAR_MAP), gives_same=True,
        parameters=(Parameter("degree", 2, 2, 4, "of the root of the absolute value"),), keeps=_POSITIVE_FACTORS,
    ),
    Operator(
        "log", "transform", "autokd.distill.transforms.global_steps:Log", group="normalise",
        formula="sign(x) log(1 + |x|)", meaning="great numbers made much smaller, signs kept",
        paper="Auto-KD, ICCV 2023", takes=(*FEATURES, SCALAR_MAP), gives_same=True, keeps=effects("grouping"),
    ),
    # Log-odds pass everything on; distances compare the probabilities.
    Operator(
        "sigmoid", "transform", "autokd.distill.transforms.global_steps:Sigmoid", group="normalise",
        formula="sigmoid(x / {temperature})", meaning="each number as a yes or no of its own",
        paper="BCKD, arXiv:2308.14286, section 3", takes=(*FEATURES, LOGITS), gives=BINARY, parameters=(_TEMPERATURE,),
        keeps=effects("channel_affine", "sample_channel_affine") | _POSITIVE_FACTORS,
    ),
    Operator(
        "affine", "transform", "autokd.distill.transforms.learned:Affine", group="scale",
        formula="exp(a_c) s + b_c", meaning="the student's channels scaled and shifted by learned numbers",
        paper="DetKDS, ICML 2024", gives_same=True, learns=True, zero_at_equality=False,
        adds=effects("channel_affine"), keeps=effects("sample_channel_affine", "grouping"),
    ),
    Operator(
        "softmax_cells", "transform", "autokd.distill.transforms.global_steps:SoftmaxCells", group="normalise",
        formula="softmax_s(x / {temperature})", meaning="each channel as a distribution over the cells",
        paper="CWD, arXiv:2011.13256, eq. 2", takes=(*FEATURES, SCALAR_MAP),
        gives=CELL_DISTRIBUTION, compares_cells=True, parameters=(_TEMPERATURE,),
        keeps=effects("sample_channel_affine"),  # of the log-probabilities; distances compare probabilities
    ),
    Operator(
        "softmax_channels", "transform", "autokd.distill.transforms.global_steps:SoftmaxChannels", group="normalise",
        formula="softmax_c(x / {temperature})", meaning="each cell as a distribution over the channels",
        paper="DetKDS, ICML 2024", takes=(*FEATURES, LOGITS), gives=CHANNEL_DISTRIBUTION, parameters=(_TEMPERATURE,),
        keeps=effects("grouping"),
    ),
)  # fmt: skip
