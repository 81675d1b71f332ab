"""Random masks."""

from __future__ import annotations

from autokd.spec.operator import Operator, Parameter

_MODULE = "autokd.distill.transforms.masks"

ROWS: tuple[Operator, ...] = (
    Operator(
        "random_mask", "transform", f"{_MODULE}:RandomMask", group="attention",
        formula="x * mask", meaning="random cells set to 0, the same on both sides",
        paper="DetKDS, ICML 2024", is_random=True, gives_same=True,
        parameters=(Parameter("drop", 0.5, 0.05, 0.95, "probability that a cell is set to 0"),),
    ),
)  # fmt: skip
