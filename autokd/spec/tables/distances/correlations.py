"""One minus a cosine or a correlation."""

from __future__ import annotations

from autokd.spec.operator import CHANNEL_DISTRIBUTION, FEATURES, LOGITS, SCALAR_MAP, Operator, effects

_MODULE = "autokd.distill.distances.correlations"

ROWS: tuple[Operator, ...] = (
    Operator(
        "cosine", "distance", f"{_MODULE}:Cosine",
        takes=(*FEATURES, LOGITS, CHANNEL_DISTRIBUTION),
        formula="mean 1 - cos_c(s, t)", meaning="mean over the cells of one minus the cosine of the two vectors",
        paper="DetKDS, ICML 2024", keeps=effects("grouping"), blind_to=effects("cell_scale"), min_channels=2,
    ),
    Operator(
        "pearson", "distance", f"{_MODULE}:Pearson", needs_batch=True,
        takes=(*FEATURES, SCALAR_MAP, LOGITS, CHANNEL_DISTRIBUTION),
        formula="mean 1 - corr_bs(s, t)",
        meaning="mean over the channels of one minus the correlation over batch and cells",
        paper="PKD, arXiv:2207.02039, eq. 5", keeps=effects("grouping"), blind_to=effects("channel_affine"),
        min_positions=3,
    ),
    Operator(
        "pearson_channels", "distance", f"{_MODULE}:PearsonChannels",
        takes=(*FEATURES, LOGITS, CHANNEL_DISTRIBUTION),
        formula="mean 1 - corr_c(s, t)", meaning="mean over the cells of one minus the correlation over the channels",
        paper="DIST, arXiv:2205.10536, eq. 8", keeps=effects("grouping"),
        blind_to=effects("cell_scale", "class_affine"), min_channels=3,
    ),
    Operator(
        "cross_correlation", "distance", f"{_MODULE}:CrossCorrelation",
        takes=(*FEATURES, SCALAR_MAP), compares_cells=True, min_cells=3,
        formula="mean 1 - corr_s(s, t)",
        meaning="mean over samples and channels of one minus the correlation over the cells",
        paper="DetKDS, ICML 2024",
        blind_to=effects("channel_affine", "sample_channel_scale", "sample_channel_affine"),
    ),
)  # fmt: skip
