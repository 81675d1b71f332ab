"""Functions of each number by itself."""

from __future__ import annotations

from autokd.spec.operator import BINARY, FEATURES, LOGITS, SCALAR_MAP, Operator, Parameter, effects

_MODULE = "autokd.distill.transforms.pointwise"
_POSITIVE_FACTORS = effects("cell_scale", "sample_channel_scale", "position_scale", "grouping")
_TEMPERATURE = Parameter("temperature", 1.0, 0.01, 100.0, "divides the logits of the softmax")

ROWS: tuple[Operator, ...] = (
    Operator(
        "power", "transform", f"{_MODULE}:Power", group="normalise",
        formula="sign(x) |x|^{exponent}", meaning="great numbers made greater, signs kept",
        paper="Auto-KD, ICCV 2023", takes=(*FEATURES, SCALAR_MAP), gives_same=True,
        parameters=(Parameter("exponent", 2, 2, 3, "of the absolute value"),), keeps=_POSITIVE_FACTORS,
    ),
    Operator(
        "root", "transform", f"{_MODULE}:Root", group="normalise",
        formula="sign(x) |x|^(1 / {degree})", meaning="great numbers made smaller, signs kept",
        paper="Auto-KD, ICCV 2023", takes=(*FEATURES, SCALAR_MAP), gives_same=True,
        parameters=(Parameter("degree", 2, 2, 4, "of the root of the absolute value"),), keeps=_POSITIVE_FACTORS,
    ),
    Operator(
        "log", "transform", f"{_MODULE}:Log", group="normalise",
        formula="sign(x) log(1 + |x|)", meaning="great numbers made much smaller, signs kept",
        paper="Auto-KD, ICCV 2023", takes=(*FEATURES, SCALAR_MAP), gives_same=True, keeps=effects("grouping"),
    ),
    # Log-odds pass everything on; distances compare the probabilities.
    Operator(
        "sigmoid", "transform", f"{_MODULE}:Sigmoid", group="normalise",
        formula="sigmoid(x / {temperature})", meaning="each number as a yes or no of its own",
        paper="BCKD, arXiv:2308.14286, section 3", takes=(*FEATURES, LOGITS), gives=BINARY, parameters=(_TEMPERATURE,),
        keeps=effects("channel_affine", "sample_channel_affine") | _POSITIVE_FACTORS,
    ),
)  # fmt: skip
