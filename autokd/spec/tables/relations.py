"""Transformations of Auto-KD's third kind: relations between channels, samples, cells, regions and classes."""

from __future__ import annotations

from autokd.spec.operator import REGIONS, SCALAR_MAP, Operator, Parameter

_BETWEEN = "autokd.distill.transforms.region_relations"

ROWS = (
    Operator(
        "gram_channels", "transform", "autokd.distill.transforms.relations:GramChannels", group="relation",
        formula="mean_s x_c x_d", meaning="how alike each two channels of a sample are",
        paper="Gatys et al., arXiv:1508.06576, eq. 3", gives=SCALAR_MAP,
    ),
    Operator(
        "gram_samples", "transform", "autokd.distill.transforms.relations:GramSamples", group="relation",
        formula="sum_cs x_i x_j", meaning="how alike each two samples of the batch are",
        paper="SP, arXiv:1907.09682, section 3", gives=SCALAR_MAP, needs_batch=True,
    ),
    Operator(
        "gram_cells", "transform", "autokd.distill.transforms.relations:GramCells", group="relation",
        formula="mean_c x_i x_j, at most {side} x {side} cells",
        meaning="how alike each two cells of a sample are; larger maps are averaged over windows first",
        paper="Structured knowledge distillation, arXiv:1903.04197", gives=SCALAR_MAP,
        parameters=(Parameter("side", 16, 2, 32, "the most cells per side"),),
    ),
    Operator(
        "non_local", "transform", "autokd.distill.transforms.non_local:NonLocal", group="relation",
        formula="x_i + W mean_j <theta x_i, phi x_j> g x_j",
        meaning="each cell with what all cells of the sample say about it, by learned maps",
        paper="FBKD, ICLR 2021, section 3; arXiv:1711.07971, eqs. 1, 4 and 6",
        gives_same=True, learns=True, zero_at_equality=False,
        parameters=(Parameter("reduction", 4, 1, 32, "divides the channels inside the block"),),
    ),
    Operator(
        "pair_distances", "transform", f"{_BETWEEN}:PairDistances", group="relation",
        formula="||x_i - x_j|| / mean", meaning="how far each two regions of the batch are apart",
        paper="RKD, arXiv:1904.05068, section 3.2.1", takes=(REGIONS,), gives=SCALAR_MAP, needs_batch=True,
    ),
    Operator(
        "triplet_angles", "transform", f"{_BETWEEN}:TripletAngles", group="relation",
        formula="cos(x_i - x_j, x_k - x_j), at most {most}",
        meaning="the angles between each three regions of the batch",
        paper="RKD, arXiv:1904.05068, section 3.2.2", takes=(REGIONS,), gives=SCALAR_MAP, needs_batch=True,
        parameters=(Parameter("most", 16, 3, 64, "the most regions, images taking turns"),),
    ),
    Operator(
        "within_class", "transform", f"{_BETWEEN}:WithinClass", group="relation",
        formula="||x_i - mean_class(i) x||", meaning="how far each region is from the centre of its class",
        paper="after IFVD, ECCV 2020", takes=(REGIONS,), gives=SCALAR_MAP, needs_batch=True,
    ),
    Operator(
        "between_class", "transform", f"{_BETWEEN}:BetweenClass", group="relation",
        formula="||mean_class(k) x - mean_class(l) x||", meaning="how far the centres of each two classes are apart",
        paper="after RKD, arXiv:1904.05068", takes=(REGIONS,), gives=SCALAR_MAP, needs_batch=True,
    ),
)  # fmt: skip
