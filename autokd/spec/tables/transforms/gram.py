"""Gram matrices between channels, samples or cells."""

from __future__ import annotations

from autokd.spec.operator import SCALAR_MAP, Operator, Parameter

_MODULE = "autokd.distill.transforms.gram"

ROWS: tuple[Operator, ...] = (
    Operator(
        "gram_channels", "transform", f"{_MODULE}:GramChannels", group="relation",
        formula="mean_s x_c x_d", meaning="inner product of each two channels of a sample",
        paper="Gatys et al., arXiv:1508.06576, eq. 3", gives=SCALAR_MAP, own_samples=True,
    ),
    Operator(
        "gram_samples", "transform", f"{_MODULE}:GramSamples", group="relation",
        formula="sum_cs x_i x_j", meaning="inner product of each two samples of the batch",
        paper="SP, arXiv:1907.09682, section 3", gives=SCALAR_MAP, needs_batch=True, cells_are="samples",
    ),
    Operator(
        "gram_cells", "transform", f"{_MODULE}:GramCells", group="relation",
        formula="mean_c x_i x_j, at most {side} x {side} cells",
        meaning="inner product of each two cells of a sample; larger maps are averaged over windows first",
        paper="Structured knowledge distillation, arXiv:1903.04197", gives=SCALAR_MAP, own_samples=True,
        parameters=(Parameter("side", 16, 2, 32, "maximum number of cells per side"),),
    ),
)  # fmt: skip
