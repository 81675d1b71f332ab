"""Relations between the cells of a map, from the parts of an image."""

from __future__ import annotations

from autokd.spec.operator import SCALAR_MAP, Operator, Parameter

_MODULE = "autokd.distill.sources.cell_relations"

ROWS: tuple[Operator, ...] = (
    Operator(
        "foreground_to_background", "source", f"{_MODULE}:ForegroundToBackground",
        formula="cos(F_i, F_j), i in fg, j in bg, at most {cells} each",
        meaning="cosines of the cells inside ground-truth boxes to those outside; of more cells, evenly spaced ones",
        paper="after GiftNet, arXiv:2308.00356 (relation distillation)", needs_taps=("fpn",), by_level=True,
        gives=SCALAR_MAP,
        parameters=(Parameter("cells", 64, 2, 1024, "most cells of either part of an image"),),
    ),
)  # fmt: skip
