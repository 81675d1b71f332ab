"""Sums over a sample instead of means."""

from __future__ import annotations

from autokd.spec.operator import NUMBERS, Operator, Parameter, effects

_MODULE = "autokd.distill.distances.sums"

ROWS: tuple[Operator, ...] = (
    Operator(
        "l1_sum", "distance", f"{_MODULE}:L1Sum", takes=NUMBERS,
        formula="mean_b sum_cs |s - t|",
        meaning="absolute difference, summed over channels and cells, averaged over samples",
        paper="FGD, arXiv:2111.11837, section 3.1", keeps=effects("grouping"),
    ),
    Operator(
        "l2_sum", "distance", f"{_MODULE}:L2Sum", takes=NUMBERS,
        formula="mean_b sum_cs (s - t)^2",
        meaning="squared difference, summed over channels and cells, averaged over samples",
        paper="FGD, arXiv:2111.11837, section 3.1", keeps=effects("grouping"),
    ),
    Operator(
        "l2_norm", "distance", f"{_MODULE}:L2Norm", takes=NUMBERS,
        formula="sqrt(sum (s - t)^2)", meaning="length of the difference of all numbers as one vector",
        paper="FBKD, ICLR 2021, section 3.1", keeps=effects("grouping"),
    ),
    Operator(
        "smooth_l1_sum", "distance", f"{_MODULE}:SmoothL1Sum", takes=NUMBERS,
        formula="mean_b sum_cs huber_{beta}(s - t)",
        meaning="Huber loss, summed over channels and cells, averaged over samples",
        paper="MLKD, arXiv:2308.06453 (its release)", keeps=effects("grouping"),
        parameters=(Parameter("beta", 1.0, 0.001, 100.0, "difference where quadratic turns to linear"),),
    ),
)  # fmt: skip
