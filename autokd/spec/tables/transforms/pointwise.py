"""Functions of each number by itself."""

from __future__ import annotations

from autokd.spec.operator import BINARY, FEATURES, LOGITS, SCALAR_MAP, Operator, Parameter, effects

_MODULE = "autokd.distill.transforms.pointwise"
_POSITIVE_FACTORS = effects("cell_scale", "sample_channel_scale", "position_scale", "grouping")
_TEMPERATURE = Parameter("temperature", 1.0, 0.01, 100.0, "divides the logits")

ROWS: tuple[Operator, ...] = (
    Operator(
        "power", "transform", f"{_MODULE}:Power", group="normalize",
        formula="sign(x) |x|^{exponent}", meaning="power of the absolute value, with the sign kept",
        paper="Auto-KD, ICCV 2023", takes=(*FEATURES, SCALAR_MAP), gives_same=True,
        parameters=(Parameter("exponent", 2, 2, 3, "exponent of the absolute value"),), keeps=_POSITIVE_FACTORS,
    ),
    Operator(
        "root", "transform", f"{_MODULE}:Root", group="normalize",
        formula="sign(x) |x|^(1 / {degree})", meaning="root of the absolute value, with the sign kept",
        paper="Auto-KD, ICCV 2023", takes=(*FEATURES, SCALAR_MAP), gives_same=True,
        parameters=(Parameter("degree", 2, 2, 4, "degree of the root"),), keeps=_POSITIVE_FACTORS,
    ),
    Operator(
        "log", "transform", f"{_MODULE}:Log", group="normalize",
        formula="sign(x) log(1 + |x|)", meaning="logarithm of 1 + the absolute value, with the sign kept",
        paper="Auto-KD, ICCV 2023", takes=(*FEATURES, SCALAR_MAP), gives_same=True, keeps=effects("grouping"),
    ),
    # Log-odds pass everything on; distances compare the probabilities.
    Operator(
        "sigmoid", "transform", f"{_MODULE}:Sigmoid", group="normalize",
        formula="sigmoid(x / {temperature})", meaning="each number as the log-odds of a yes-or-no question of its own",
        paper="BCKD, arXiv:2308.14286, section 3", takes=(*FEATURES, LOGITS), gives=BINARY, parameters=(_TEMPERATURE,),
        keeps=effects("channel_affine", "sample_channel_affine", "class_affine") | _POSITIVE_FACTORS,
    ),
)  # fmt: skip
