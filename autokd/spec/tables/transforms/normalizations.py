"""Normalizations of channels, cells, numbers or samples."""

from __future__ import annotations

from autokd.spec.operator import FEATURES, LOGITS, SCALAR_MAP, Operator, effects

_MODULE = "autokd.distill.transforms.normalizations"

ROWS: tuple[Operator, ...] = (
    Operator(
        "standardize", "transform", f"{_MODULE}:Standardize", group="normalize",
        formula="(x - mean_bs x) / std_bs x",
        meaning="each channel shifted and scaled to mean 0 and standard deviation 1 over batch and cells",
        paper="PKD, arXiv:2207.02039, section 3.2", needs_batch=True,
        takes=(*FEATURES, SCALAR_MAP, LOGITS), gives_same=True,
        adds=effects("channel_affine"), keeps=effects("sample_channel_affine", "grouping"),
        blind_to=effects("channel_affine"), min_positions=3,
    ),
    Operator(
        "l2_channels", "transform", f"{_MODULE}:L2Channels", group="normalize",
        formula="x / ||x||_c", meaning="the vector of each cell, scaled to length 1",
        paper="DetKDS, ICML 2024",
        takes=(*FEATURES, LOGITS), gives_same=True,
        adds=effects("cell_scale"), keeps=effects("grouping", "class_affine"), blind_to=effects("cell_scale"),
        min_channels=2,
    ),
    Operator(
        "l2_cells", "transform", f"{_MODULE}:L2Cells", group="normalize",
        formula="x / ||x||_s", meaning="each channel of each sample, scaled to length 1 over its cells",
        paper="DetKDS, ICML 2024",
        takes=(*FEATURES, SCALAR_MAP), gives_same=True, compares_cells=True, min_cells=2,
        adds=effects("sample_channel_scale"), keeps=effects("sample_channel_affine"),
        blind_to=effects("sample_channel_scale"),
    ),
    Operator(
        "l2_samples", "transform", f"{_MODULE}:L2Samples", group="normalize",
        formula="x / ||x||_b", meaning=(
            "each number, scaled to length 1 over the samples of the batch; a single sample becomes its sign, which "
            "has no gradient"
        ),
        paper="DetKDS, ICML 2024", takes=(*FEATURES, SCALAR_MAP), gives_same=True, needs_batch=True,
        adds=effects("position_scale"), blind_to=effects("position_scale"), min_samples=2,
    ),
    Operator(
        "min_max", "transform", f"{_MODULE}:MinMax", group="normalize",
        formula="(x - min_s x) / (max_s x - min_s x)",
        meaning="each channel of each sample, shifted and scaled to the range 0 to 1",
        paper="DetKDS, ICML 2024", takes=(*FEATURES, SCALAR_MAP), gives_same=True, compares_cells=True,
        adds=effects("sample_channel_affine"), min_cells=3,
        blind_to=effects("channel_affine", "sample_channel_scale", "sample_channel_affine"),
    ),
    Operator(
        "standardize_classes", "transform", f"{_MODULE}:StandardizeClasses", group="normalize",
        formula="(x - mean_c x) / std_c x",
        meaning="the logits of each candidate, shifted and scaled to mean 0 and standard deviation 1 over the classes",
        paper="Logit standardization, arXiv:2403.01427, eq. 9", takes=(LOGITS,), gives_same=True, min_channels=3,
        adds=effects("class_affine"), blind_to=effects("cell_scale", "class_affine"),
    ),
)  # fmt: skip
