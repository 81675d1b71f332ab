"""A learned scale and shift of the student's channels."""

from __future__ import annotations

from autokd.spec.operator import Operator, effects

_MODULE = "autokd.distill.transforms.affine"

ROWS: tuple[Operator, ...] = (
    Operator(
        "affine", "transform", f"{_MODULE}:Affine", group="scale",
        formula="exp(a_c) s + b_c",
        meaning="the student's channels, each with a learned positive scale and a learned shift",
        paper="DetKDS, ICML 2024", gives_same=True, learns=True, zero_at_equality=False,
        adds=effects("channel_affine"), keeps=effects("sample_channel_affine", "grouping"),
    ),
)  # fmt: skip
