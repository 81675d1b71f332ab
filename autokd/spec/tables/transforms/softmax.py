"""Softmaxes over cells or channels."""

from __future__ import annotations

from autokd.spec.operator import (
    CELL_DISTRIBUTION,
    CHANNEL_DISTRIBUTION,
    FEATURES,
    LOGITS,
    SCALAR_MAP,
    Operator,
    Parameter,
    effects,
)

_MODULE = "autokd.distill.transforms.softmax"
_TEMPERATURE = Parameter("temperature", 1.0, 0.01, 100.0, "divides the logits")

ROWS: tuple[Operator, ...] = (
    Operator(
        "softmax_cells", "transform", f"{_MODULE}:SoftmaxCells", group="normalize",
        formula="softmax_s(x / {temperature})", meaning="each channel of a sample as a distribution over its cells",
        paper="CWD, arXiv:2011.13256, eq. 2", takes=(*FEATURES, SCALAR_MAP),
        gives=CELL_DISTRIBUTION, compares_cells=True, min_cells=2, parameters=(_TEMPERATURE,),
        keeps=effects("sample_channel_affine"),  # of the log-probabilities; distances compare probabilities
    ),
    Operator(
        "softmax_channels", "transform", f"{_MODULE}:SoftmaxChannels", group="normalize",
        formula="softmax_c(x / {temperature})", meaning="each cell as a distribution over its channels",
        paper="DetKDS, ICML 2024", takes=(*FEATURES, LOGITS), gives=CHANNEL_DISTRIBUTION, parameters=(_TEMPERATURE,),
        keeps=effects("grouping"), min_channels=2,
    ),
)  # fmt: skip
