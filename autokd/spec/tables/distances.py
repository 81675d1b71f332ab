"""Distances between maps of numbers and between distributions."""

from __future__ import annotations

from autokd.spec.operator import CHANNEL_DISTRIBUTION, DISTRIBUTIONS, FEATURES, NUMBERS, Operator, Parameter, effects

ROWS = (
    Operator(
        "l1", "distance", "autokd.distill.distances.general:L1", takes=NUMBERS,
        formula="mean |s - t|", meaning="mean absolute difference",
        paper="DetKDS, ICML 2024", keeps=effects("grouping"),
    ),
    Operator(
        "l2", "distance", "autokd.distill.distances.general:L2", takes=NUMBERS,
        formula="mean (s - t)^2", meaning="mean squared difference",
        paper="FitNet, arXiv:1412.6550", keeps=effects("grouping"),
    ),
    Operator(
        "smooth_l1", "distance", "autokd.distill.distances.general:SmoothL1", takes=NUMBERS,
        formula="mean huber_{beta}(s - t)", meaning="quadratic below beta, linear above",
        paper="Fast R-CNN, arXiv:1504.08083, eq. 3", keeps=effects("grouping"),
        parameters=(Parameter("beta", 1.0, 0.001, 100.0, "where the parabola ends"),),
    ),
    Operator(
        "cosine", "distance", "autokd.distill.distances.general:Cosine", takes=(*FEATURES, CHANNEL_DISTRIBUTION),
        formula="mean 1 - cos_c(s, t)", meaning="one minus the cosine of the cells' vectors",
        paper="DetKDS, ICML 2024", keeps=effects("grouping"), blind_to=effects("cell_scale"),
    ),
    Operator(
        "pearson", "distance", "autokd.distill.distances.general:Pearson", takes=FEATURES, needs_batch=True,
        formula="mean 1 - corr_bs(s, t)",
        meaning="one minus the correlation of each channel over batch and cells",
        paper="PKD, arXiv:2207.02039, eq. 5", keeps=effects("grouping"), blind_to=effects("channel_affine"),
    ),
    Operator(
        "kl", "distance", "autokd.distill.distances.general:KL",
        takes=DISTRIBUTIONS,
        formula="tau^2 mean KL(t || s)", meaning="divergence from teacher to student, per distribution",
        paper="CWD, arXiv:2011.13256, eq. 3", keeps=effects("grouping"),
    ),
    Operator(
        "l1_sum", "distance", "autokd.distill.distances.sums:L1Sum", takes=NUMBERS,
        formula="mean_b sum_cs |s - t|", meaning="absolute difference, summed over channels and cells of a sample",
        paper="FGD, arXiv:2111.11837, eq. 8", keeps=effects("grouping"),
    ),
    Operator(
        "l2_sum", "distance", "autokd.distill.distances.sums:L2Sum", takes=NUMBERS,
        formula="mean_b sum_cs (s - t)^2", meaning="squared difference, summed over channels and cells of a sample",
        paper="FGD, arXiv:2111.11837, eq. 6", keeps=effects("grouping"),
    ),
    Operator(
        "l2_norm", "distance", "autokd.distill.distances.sums:L2Norm", takes=NUMBERS,
        formula="sqrt(sum (s - t)^2)", meaning="the length of the difference, everything in one vector",
        paper="FBKD, ICLR 2021, eqs. 2-4", keeps=effects("grouping"),
    ),
)  # fmt: skip
