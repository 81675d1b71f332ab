"""Distances between maps of numbers and between distributions."""

from __future__ import annotations

from autokd.spec.operator import (
    CHANNEL_DISTRIBUTION,
    DISTRIBUTIONS,
    FEATURES,
    LOGITS,
    NUMBERS,
    SCALAR_MAP,
    Operator,
    Parameter,
    effects,
)

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
        "cosine", "distance", "autokd.distill.distances.general:Cosine",
        takes=(*FEATURES, LOGITS, CHANNEL_DISTRIBUTION),
        formula="mean 1 - cos_c(s, t)", meaning="one minus the cosine of the cells' vectors",
        paper="DetKDS, ICML 2024", keeps=effects("grouping"), blind_to=effects("cell_scale"),
    ),
    Operator(
        "pearson", "distance", "autokd.distill.distances.general:Pearson", needs_batch=True,
        takes=(*FEATURES, SCALAR_MAP, LOGITS, CHANNEL_DISTRIBUTION),
        formula="mean 1 - corr_bs(s, t)",
        meaning="one minus the correlation of each channel over batch and cells",
        paper="PKD, arXiv:2207.02039, eq. 5", keeps=effects("grouping"), blind_to=effects("channel_affine"),
    ),
    Operator(
        "pearson_channels", "distance", "autokd.distill.distances.general:PearsonChannels",
        takes=(*FEATURES, LOGITS, CHANNEL_DISTRIBUTION),
        formula="mean 1 - corr_c(s, t)", meaning="one minus the correlation of the cells' vectors over the channels",
        paper="DIST, arXiv:2205.10536, eq. 8", keeps=effects("grouping"), blind_to=effects("cell_scale"),
    ),
    Operator(
        "cross_correlation", "distance", "autokd.distill.distances.general:CrossCorrelation",
        takes=(*FEATURES, SCALAR_MAP), compares_cells=True,
        formula="mean 1 - corr_s(s, t)",
        meaning="one minus the correlation of each channel of each sample over its cells",
        paper="DetKDS, ICML 2024",
        blind_to=effects("channel_affine", "sample_channel_scale", "sample_channel_affine"),
    ),
    Operator(
        "kl", "distance", "autokd.distill.distances.divergences:KL",
        takes=DISTRIBUTIONS,
        formula="tau^2 mean KL(t || s)", meaning="divergence from teacher to student, per distribution",
        paper="CWD, arXiv:2011.13256, eq. 3", keeps=effects("grouping"),
    ),
    Operator(
        "kl_reverse", "distance", "autokd.distill.distances.divergences:KLReverse", takes=DISTRIBUTIONS,
        formula="tau^2 mean KL(s || t)", meaning="divergence from student to teacher, per distribution",
        paper="DetKDS, ICML 2024", keeps=effects("grouping"),
    ),
    Operator(
        "js", "distance", "autokd.distill.distances.divergences:JensenShannon", takes=DISTRIBUTIONS,
        formula="tau^2 mean (KL(s || m) + KL(t || m)) / 2", meaning="divergence of both from their middle",
        paper="Lin, IEEE Trans. Inf. Theory, 1991", keeps=effects("grouping"),
    ),
    Operator(
        "cauchy_schwarz", "distance", "autokd.distill.distances.divergences:CauchySchwarz", takes=DISTRIBUTIONS,
        formula="tau^2 mean -log(<s, t> / (||s|| ||t||))", meaning="minus the logarithm of the distributions' cosine",
        paper="Principe, Information Theoretic Learning, 2010", keeps=effects("grouping"),
    ),
    Operator(
        "l1_sum", "distance", "autokd.distill.distances.sums:L1Sum", takes=NUMBERS,
        formula="mean_b sum_cs |s - t|", meaning="absolute difference, summed over channels and cells of a sample",
        paper="FGD, arXiv:2111.11837, section 3.1", keeps=effects("grouping"),
    ),
    Operator(
        "l2_sum", "distance", "autokd.distill.distances.sums:L2Sum", takes=NUMBERS,
        formula="mean_b sum_cs (s - t)^2", meaning="squared difference, summed over channels and cells of a sample",
        paper="FGD, arXiv:2111.11837, section 3.1", keeps=effects("grouping"),
    ),
    Operator(
        "l2_norm", "distance", "autokd.distill.distances.sums:L2Norm", takes=NUMBERS,
        formula="sqrt(sum (s - t)^2)", meaning="the length of the difference, everything in one vector",
        paper="FBKD, ICLR 2021, section 3.1", keeps=effects("grouping"),
    ),
)  # fmt: skip
