"""Divergences between distributions."""

from __future__ import annotations

from autokd.spec.operator import DISTRIBUTIONS, Operator, Parameter, effects

_MODULE = "autokd.distill.distances.divergences"

ROWS: tuple[Operator, ...] = (
    Operator(
        "kl", "distance", f"{_MODULE}:KL",
        takes=DISTRIBUTIONS,
        formula="tau^2 mean KL(t || s)", meaning="mean KL divergence of the student's distributions from the teacher's",
        paper="CWD, arXiv:2011.13256, eq. 3", keeps=effects("grouping"),
        parameters=(
            Parameter(
                "per_member", 0, 0, 1,
                "1: divided by the number of members of a distribution (classes, bins or cells)",
                omitted_at_default=True,
            ),
            Parameter(
                "divisor", 0, 0, 2,
                "weighted sum over distributions divided by 0: the sum of weights, 1: the number of those that count, "
                "2: nothing",
                omitted_at_default=True,
            ),
        ),
    ),
    Operator(
        "kl_reverse", "distance", f"{_MODULE}:KLReverse", takes=DISTRIBUTIONS,
        formula="tau^2 mean KL(s || t)", meaning="mean KL divergence of the teacher's distributions from the student's",
        paper="DetKDS, ICML 2024", keeps=effects("grouping"),
    ),
    Operator(
        "js", "distance", f"{_MODULE}:JensenShannon", takes=DISTRIBUTIONS,
        formula="tau^2 mean (KL(s || m) + KL(t || m)) / 2",
        meaning="mean Jensen-Shannon divergence: of both from their average",
        paper="Lin, IEEE Trans. Inf. Theory, 1991", keeps=effects("grouping"),
    ),
    Operator(
        "cauchy_schwarz", "distance", f"{_MODULE}:CauchySchwarz", takes=DISTRIBUTIONS,
        formula="tau^2 mean -log(<s, t> / (||s|| ||t||))",
        meaning="mean of minus the logarithm of the cosine of the two distributions",
        paper="Principe, Information Theoretic Learning, 2010", keeps=effects("grouping"),
    ),
)  # fmt: skip
