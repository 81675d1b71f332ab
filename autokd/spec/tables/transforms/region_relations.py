"""Relations between the regions of a batch and between their classes."""

from __future__ import annotations

from autokd.spec.operator import CELL_DISTRIBUTION, REGIONS, SCALAR_MAP, Operator, Parameter, effects

_MODULE = "autokd.distill.transforms.region_relations"

ROWS: tuple[Operator, ...] = (
    Operator(
        "pair_distances", "transform", f"{_MODULE}:PairDistances", group="relation",
        formula="||x_i - x_j|| / mean",
        meaning="distance of each two regions of the batch, divided by the mean distance",
        paper="RKD, arXiv:1904.05068, section 3.2.1", takes=(REGIONS,), gives=SCALAR_MAP, needs_batch=True,
        # The one distance of two regions is its own mean.
        min_samples=3, cells_are="samples", idle_cells=1,
    ),
    Operator(
        "triplet_angles", "transform", f"{_MODULE}:TripletAngles", group="relation",
        formula="cos(x_i - x_j, x_k - x_j), at most {most}",
        meaning="cosine of the angle at the middle one of each three regions of the batch",
        paper="RKD, arXiv:1904.05068, section 3.2.2", takes=(REGIONS,), gives=SCALAR_MAP, needs_batch=True,
        min_samples=3, cells_are="samples", idle_cells=1, combines=2,
        parameters=(Parameter("most", 16, 3, 64, "maximum number of regions, taken from the images in turn"),),
    ),
    Operator(
        "within_class", "transform", f"{_MODULE}:WithinClass", group="relation",
        formula="||x_i - mean_class(i) x||", meaning="distance of each region from the mean of its class in the batch",
        paper="after IFVD, ECCV 2020", takes=(REGIONS,), gives=SCALAR_MAP, needs_batch=True,
        min_samples=2, cells_are="samples", own_samples=True,
    ),
    Operator(
        "between_class", "transform", f"{_MODULE}:BetweenClass", group="relation",
        formula="||mean_class(k) x - mean_class(l) x||",
        meaning="distance of the means of each two classes in the batch",
        paper="after RKD, arXiv:1904.05068", takes=(REGIONS,), gives=SCALAR_MAP, needs_batch=True,
        min_classes=2, min_samples=2, cells_are="classes", idle_cells=1, own_samples=True,
    ),
    Operator(
        "affinity", "transform", f"{_MODULE}:Affinity",
        formula="softmax_j(cos(x_i, x_j) / {temperature}), j != i",
        meaning="each region as a distribution over the other regions of the batch, by similarity",
        paper="after TinyCLIP, arXiv:2309.12314, section 3.1", takes=(REGIONS,), gives=CELL_DISTRIBUTION,
        needs_batch=True, min_samples=3, cells_are="samples", idle_cells=1, blind_to=effects("cell_scale"),
        parameters=(Parameter("temperature", 0.1, 0.01, 10.0, "divides the similarities"),),
    ),
)  # fmt: skip
