"""The tables of operators: one row an operator, one table a kind. No torch here.

A row says what an operator takes and gives, what it may not follow, which numbers it has, how a person writes
it, where it was published, and where its class lives (imported only when a distiller is built). The space,
the canonical form, the formula, the reference in ``docs/`` and every conformance suite read these rows, so
adding an operator is a class, a row and a golden value in its test.

Layouts (what a value between two steps is):
    map                    (B, C, H, W) any real numbers; B counts images, regions or patches
    cell_distribution      (B, C, H, W) log-probabilities, each channel of each sample sums to 1 over its cells
    channel_distribution   (B, C, H, W) log-probabilities, each cell sums to 1 over its channels

Effects (what a step changed that a later step may be blind to). A step that is blind to a pending effect
would undo it silently, so the pair is refused; a step that ``keeps`` an effect commutes with it, so the effect
stays pending; any other step uses the effect up. What is still pending at a distance that keeps it or is
blind to it would have no influence on the loss, so it is refused as well.
    cell_scale             each cell multiplied by a positive number, the same for all channels
    channel_affine         each channel scaled and shifted, the same in all samples and cells
    sample_channel_scale   each channel of each sample multiplied by a positive number
    grouping               cells regrouped into patches: means nothing until cells are compared with each other
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from autokd.errors import SpecError, one_of

Layout = Literal["map", "cell_distribution", "channel_distribution"]
Effect = Literal["cell_scale", "channel_affine", "sample_channel_scale", "grouping"]
Kind = Literal["source", "transform", "distance"]
Number = int | float

MAP: Layout = "map"
CELL_DISTRIBUTION: Layout = "cell_distribution"
CHANNEL_DISTRIBUTION: Layout = "channel_distribution"
ANY_LAYOUT: tuple[Layout, ...] = (MAP, CELL_DISTRIBUTION, CHANNEL_DISTRIBUTION)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number of an operator: its default and the closed range that makes sense."""

    name: str
    default: Number
    low: Number
    high: Number
    meaning: str = ""

    @property
    def is_integer(self) -> bool:
        return isinstance(self.default, int)


@dataclass(frozen=True, slots=True)
class Operator:
    """One row: the signature of a source, a transformation or a distance."""

    name: str
    kind: Kind
    implementation: str
    """Where the class lives, as "package.module:Class"."""
    formula: str
    """How a person writes it; ``x`` stands for what flows in, {name} for a parameter."""
    meaning: str
    paper: str
    takes: tuple[Layout, ...] = (MAP,)
    gives: Layout = MAP
    gives_same: bool = False
    """The layout passes through unchanged (``gives`` does not matter)."""
    parameters: tuple[Parameter, ...] = ()
    adds: frozenset[Effect] = frozenset()
    keeps: frozenset[Effect] = frozenset()
    blind_to: frozenset[Effect] = frozenset()
    needs_taps: tuple[str, ...] = ()
    group: str = ""
    """Transformations only: the slot of the default space that offers it."""
    is_random: bool = False
    needs_batch: bool = False
    """Statistics over several samples are part of the definition (batch 1 works, but means less)."""

    def parameter(self, name: str) -> Parameter:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        allowed = [p.name for p in self.parameters]
        raise SpecError(f"{self.kind} '{self.name}' has " + one_of(name, allowed, noun="no such parameter:"))


def _effects(*names: Effect) -> frozenset[Effect]:
    return frozenset(names)


_TEMPERATURE = Parameter("temperature", 1.0, 0.01, 100.0, "divides the logits of the softmax")
_ALL_EFFECTS = _effects("cell_scale", "channel_affine", "sample_channel_scale", "grouping")

SOURCES: dict[str, Operator] = {
    row.name: row
    for row in (
        Operator(
            "whole", "source", "autokd.distill.sources:Whole",
            formula="F", meaning="every cell of the map, equally",
            paper="FitNet, arXiv:1412.6550", needs_taps=("fpn",),
        ),
        Operator(
            "foreground", "source", "autokd.distill.sources:Foreground",
            formula="F|fg", meaning="the cells inside ground-truth boxes",
            paper="FGD, arXiv:2111.11837, eq. 2", needs_taps=("fpn",),
        ),
        Operator(
            "background", "source", "autokd.distill.sources:Background",
            formula="F|bg", meaning="the cells outside all ground-truth boxes",
            paper="FGD, arXiv:2111.11837, eq. 2", needs_taps=("fpn",),
        ),
        Operator(
            "instance", "source", "autokd.distill.sources:Instance",
            formula="RoI{size}(F)", meaning="RoIAlign of each ground-truth box; a region is a sample",
            paper="G-DetKD, arXiv:2108.07482, section 3.1", needs_taps=("fpn",),
            parameters=(Parameter("size", 4, 1, 14, "cells of a region, per side"),),
        ),
    )
}  # fmt: skip

TRANSFORMS: dict[str, Operator] = {
    row.name: row
    for row in (
        Operator(
            "spatial_attention", "transform", "autokd.distill.transforms:SpatialAttention", group="attention",
            formula="x * N softmax_s(mean_c|x| / {temperature})",
            meaning="each cell scaled by its share of the map's energy",
            paper="FGD, arXiv:2111.11837, eq. 3",
            parameters=(Parameter("temperature", 0.5, 0.01, 100.0, "sharpness of the attention"),),
            adds=_effects("cell_scale"),
        ),
        Operator(
            "channel_attention", "transform", "autokd.distill.transforms:ChannelAttention", group="attention",
            formula="x * C softmax_c(mean_s|x| / {temperature})",
            meaning="each channel scaled by its share of the map's energy",
            paper="FGD, arXiv:2111.11837, eq. 4",
            parameters=(Parameter("temperature", 0.5, 0.01, 100.0, "sharpness of the attention"),),
            adds=_effects("sample_channel_scale"),
        ),
        Operator(
            "max_pool", "transform", "autokd.distill.transforms:MaxPool", group="scale",
            formula="maxpool{window}(x)", meaning="the greatest value of each window; odd edges are kept",
            paper="DetKDS, ICML 2024", parameters=(Parameter("window", 2, 2, 8, "cells per side"),),
            keeps=_effects("channel_affine", "sample_channel_scale", "grouping"),
        ),
        Operator(
            "local_patches", "transform", "autokd.distill.transforms:LocalPatches", group="scale",
            formula="patches{grid}x{grid}(x)", meaning="the map cut into a grid; a patch is a sample",
            paper="DetKDS, ICML 2024", parameters=(Parameter("grid", 2, 2, 8, "patches per side"),),
            adds=_effects("grouping"), keeps=_effects("cell_scale", "channel_affine", "sample_channel_scale"),
            blind_to=_effects("grouping"),
        ),
        Operator(
            "standardise", "transform", "autokd.distill.transforms:Standardise", group="normalise",
            formula="(x - mean_bs x) / std_bs x",
            meaning="each channel to mean 0 and deviation 1 over batch and cells",
            paper="PKD, arXiv:2207.02039, section 3.2", needs_batch=True,
            adds=_effects("channel_affine"), keeps=_effects("grouping"), blind_to=_effects("channel_affine"),
        ),
        Operator(
            "l2_channels", "transform", "autokd.distill.transforms:L2Channels", group="normalise",
            formula="x / ||x||_c", meaning="each cell's vector to length 1",
            paper="DetKDS, ICML 2024",
            adds=_effects("cell_scale"), keeps=_effects("grouping"), blind_to=_effects("cell_scale"),
        ),
        Operator(
            "l2_cells", "transform", "autokd.distill.transforms:L2Cells", group="normalise",
            formula="x / ||x||_s", meaning="each channel's map to length 1",
            paper="DetKDS, ICML 2024",
            adds=_effects("sample_channel_scale"), blind_to=_effects("sample_channel_scale"),
        ),
        Operator(
            "softmax_cells", "transform", "autokd.distill.transforms:SoftmaxCells", group="normalise",
            formula="softmax_s(x / {temperature})", meaning="each channel as a distribution over the cells",
            paper="CWD, arXiv:2011.13256, eq. 2", gives=CELL_DISTRIBUTION, parameters=(_TEMPERATURE,),
        ),
        Operator(
            "softmax_channels", "transform", "autokd.distill.transforms:SoftmaxChannels", group="normalise",
            formula="softmax_c(x / {temperature})", meaning="each cell as a distribution over the channels",
            paper="DetKDS, ICML 2024", gives=CHANNEL_DISTRIBUTION, parameters=(_TEMPERATURE,),
            keeps=_effects("grouping"),
        ),
    )
}  # fmt: skip

DISTANCES: dict[str, Operator] = {
    row.name: row
    for row in (
        Operator(
            "l1", "distance", "autokd.distill.distances:L1", takes=ANY_LAYOUT,
            formula="mean |s - t|", meaning="mean absolute difference",
            paper="DetKDS, ICML 2024", keeps=_effects("grouping"),
        ),
        Operator(
            "l2", "distance", "autokd.distill.distances:L2", takes=ANY_LAYOUT,
            formula="mean (s - t)^2", meaning="mean squared difference",
            paper="FitNet, arXiv:1412.6550", keeps=_effects("grouping"),
        ),
        Operator(
            "smooth_l1", "distance", "autokd.distill.distances:SmoothL1", takes=ANY_LAYOUT,
            formula="mean huber_{beta}(s - t)", meaning="quadratic below beta, linear above",
            paper="Fast R-CNN, arXiv:1504.08083, eq. 3", keeps=_effects("grouping"),
            parameters=(Parameter("beta", 1.0, 0.001, 100.0, "where the parabola ends"),),
        ),
        Operator(
            "cosine", "distance", "autokd.distill.distances:Cosine", takes=(MAP, CHANNEL_DISTRIBUTION),
            formula="mean 1 - cos_c(s, t)", meaning="one minus the cosine of the cells' vectors",
            paper="DetKDS, ICML 2024", keeps=_effects("grouping"), blind_to=_effects("cell_scale"),
        ),
        Operator(
            "pearson", "distance", "autokd.distill.distances:Pearson", takes=(MAP,), needs_batch=True,
            formula="mean 1 - corr_bs(s, t)",
            meaning="one minus the correlation of each channel over batch and cells",
            paper="PKD, arXiv:2207.02039, eq. 5", keeps=_effects("grouping"), blind_to=_effects("channel_affine"),
        ),
        Operator(
            "kl", "distance", "autokd.distill.distances:KL",
            takes=(CELL_DISTRIBUTION, CHANNEL_DISTRIBUTION),
            formula="tau^2 mean KL(t || s)", meaning="divergence from teacher to student, per distribution",
            paper="CWD, arXiv:2011.13256, eq. 3", keeps=_effects("grouping"),
        ),
    )
}  # fmt: skip

_TABLES: Mapping[Kind, dict[str, Operator]] = {
    "source": SOURCES,
    "transform": TRANSFORMS,
    "distance": DISTANCES,
}

IDENTITY = "none"
"""The step that does nothing; it may be written and vanishes in the canonical form."""


def operator_of(kind: Kind, name: str) -> Operator:
    """Return the row ``name`` of a kind; SpecError with the nearest name where there is none."""
    _load_third_parties()
    table = _TABLES[kind]
    if name not in table:
        raise SpecError(one_of(name, table, noun=kind))
    return table[name]


def all_operators() -> Iterator[Operator]:
    """Every row of every table, third parties' included."""
    _load_third_parties()
    for table in _TABLES.values():
        yield from table.values()


_third_parties_loaded = False


def _load_third_parties() -> None:
    """Add the rows that installed packages offer under the entry point group ``autokd.operators``."""
    global _third_parties_loaded
    if _third_parties_loaded:
        return
    _third_parties_loaded = True
    for entry_point in metadata.entry_points(group="autokd.operators"):
        for row in entry_point.load():
            table = _TABLES[row.kind]
            if row.name in table:
                raise SpecError(
                    f"the package behind the entry point {entry_point.name!r} offers a {row.kind} {row.name!r}, "
                    "which exists already. Rename it there."
                )
            table[row.name] = row
