"""Distances between class logits or log-odds."""

from __future__ import annotations

from autokd.spec.operator import BINARY, LOGITS, Operator, Parameter, effects

_MODULE = "autokd.distill.distances.logits"

ROWS: tuple[Operator, ...] = (
    Operator(
        "binary_cross_entropy", "distance", f"{_MODULE}:BinaryCrossEntropy", takes=(BINARY,),
        formula="tau^2 sum |p_s - p_t|^{focus} CE(p_t, p_s) / sum max_c p_t",
        meaning=(
            "cross entropy of each yes-or-no question, weighted by a power of the detached disagreement, divided by "
            "the sum of the teacher's top probabilities"
        ),
        paper="BCKD, arXiv:2308.14286, eqs. 5-6", keeps=effects("grouping"),
        parameters=(Parameter("focus", 1.0, 0.5, 4.0, "exponent of the disagreement"),),
    ),
    Operator(
        "binary_kl", "distance", f"{_MODULE}:BinaryKL", takes=(BINARY,),
        formula="tau^2 mean sum_c KL(p_t || p_s)",
        meaning="KL divergence of each yes-or-no question, summed over the channels",
        paper="MLKD, arXiv:2308.06453, eq. 3", keeps=effects("grouping"),
    ),
    Operator(
        "decoupled_kl", "distance", f"{_MODULE}:DecoupledKL", takes=(LOGITS,),
        formula="{temperature}^2 mean {alpha} KL(target, rest) + {beta} KL(among the rest)",
        meaning=(
            "KL divergence of the target class against all others plus that among the others, each with a weight of "
            "its own"
        ),
        paper="DKD, arXiv:2203.08679, eq. 7", min_channels=2,
        parameters=(
            Parameter("alpha", 1.0, 0.0, 100.0, "weight of the target class against all others"),
            Parameter("beta", 8.0, 0.01, 100.0, "weight of the distribution among the other classes"),
            Parameter("temperature", 4.0, 0.01, 100.0, "divides the logits"),
        ),
    ),
)  # fmt: skip
