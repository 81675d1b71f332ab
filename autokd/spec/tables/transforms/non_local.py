"""The learned non-local block (FBKD)."""

from __future__ import annotations

from autokd.spec.operator import Operator, Parameter

_MODULE = "autokd.distill.transforms.non_local"

ROWS: tuple[Operator, ...] = (
    Operator(
        "non_local", "transform", f"{_MODULE}:NonLocal", group="relation",
        formula="x_i + W mean_j <theta x_i, phi x_j> g x_j",
        meaning="each cell plus a learned mixture of all cells of its sample",
        paper="FBKD, ICLR 2021, section 3; arXiv:1711.07971, eqs. 1, 4 and 6",
        gives_same=True, learns=True, zero_at_equality=False,
        parameters=(Parameter("reduction", 4, 1, 32, "channels of the map per channel inside the block"),),
    ),
)  # fmt: skip
