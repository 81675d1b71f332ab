"""Distances between the vectors of cells."""

from __future__ import annotations

from autokd.spec.operator import CHANNEL_DISTRIBUTION, FEATURES, LOGITS, Operator, Parameter, effects

_MODULE = "autokd.distill.distances.vectors"

ROWS: tuple[Operator, ...] = (
    Operator(
        "l2_vectors", "distance", f"{_MODULE}:L2Vectors",
        takes=(*FEATURES, LOGITS, CHANNEL_DISTRIBUTION),
        formula="mean_s ||s - t||^2", meaning="mean over the cells of the squared length of the difference vector",
        paper="Global Knowledge, arXiv:2210.09022, eq. 8", keeps=effects("grouping"),
        parameters=(
            Parameter(
                "per_channel", 0, 0, 1,
                "1: divided by the number of channels, so that a weight is the same for maps of any width",
                omitted_at_default=True,
            ),
        ),
    ),
)  # fmt: skip
