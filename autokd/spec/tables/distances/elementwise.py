"""Means of a function of each difference."""

from __future__ import annotations

from autokd.spec.operator import NUMBERS, Operator, Parameter, effects

_MODULE = "autokd.distill.distances.elementwise"

ROWS: tuple[Operator, ...] = (
    Operator(
        "l1", "distance", f"{_MODULE}:L1", takes=NUMBERS,
        formula="mean |s - t|", meaning="mean absolute difference",
        paper="DetKDS, ICML 2024", keeps=effects("grouping"),
    ),
    Operator(
        "l2", "distance", f"{_MODULE}:L2", takes=NUMBERS,
        formula="mean (s - t)^2", meaning="mean squared difference",
        paper="FitNet, arXiv:1412.6550", keeps=effects("grouping"),
    ),
    Operator(
        "smooth_l1", "distance", f"{_MODULE}:SmoothL1", takes=NUMBERS,
        formula="mean huber_{beta}(s - t)", meaning="mean Huber loss: quadratic below beta, linear above",
        paper="Fast R-CNN, arXiv:1504.08083, eq. 3", keeps=effects("grouping"),
        parameters=(Parameter("beta", 1.0, 0.001, 100.0, "difference where quadratic turns to linear"),),
    ),
)  # fmt: skip
