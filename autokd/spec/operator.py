"""What a row of the vocabulary says about an operator: its signature. No torch here.

Layouts (what a value between two steps is; S samples, C channels, H x W cells):
    map                    (S, C, H, W) any real numbers; a sample is an image or a patch
    regions                (S, C, H, W) the same; a sample is a region of a box, which has a class
    scalar_map             (S, 1, H, W) one number a cell: an attention map, or a row of a matrix of relations
    logits                 (S, K, 1, A) class logits; a cell is a candidate box
    boxes                  (S, 4, 1, A) xyxy pixels; a cell is a candidate box
    contrast               (S, 1, 1, 1 + N) similarities of a region to its own partner and to N negatives
    cell_distribution      (S, C, H, W) log-probabilities, each channel of each sample sums to 1 over its cells
    channel_distribution   (S, C, H, W) log-probabilities, each cell sums to 1 over its channels
    binary                 (S, C, H, W) log-odds, each number a yes or no of its own

Effects (what a step changed that a later step may be blind to). A step that is blind to a pending effect
would undo it silently, so the pair is refused; a step that ``keeps`` an effect commutes with it, so the effect
stays pending; any other step uses the effect up. What is still pending at a distance that keeps it or is
blind to it would have no influence on the loss, so it is refused as well.
    cell_scale             each cell multiplied by a positive number, the same for all channels
    channel_affine         each channel scaled and shifted, the same in all samples and cells
    sample_channel_scale   each channel of each sample multiplied by a positive number
    sample_channel_affine  each channel of each sample scaled and shifted, the same in all its cells
    position_scale         each channel of each cell multiplied by a positive number, the same in all samples
    grouping               cells regrouped into patches: means nothing until cells are compared with each other

Sides: where the source says how many cells a sample has per side, steps that pool or cut change the number, and a
step that compares cells with each other is refused once a single cell is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from autokd.errors import SpecError, one_of

Layout = Literal[
    "map",
    "regions",
    "scalar_map",
    "logits",
    "boxes",
    "contrast",
    "cell_distribution",
    "channel_distribution",
    "binary",
]
Effect = Literal[
    "cell_scale",
    "channel_affine",
    "sample_channel_scale",
    "sample_channel_affine",
    "position_scale",
    "grouping",
]
Kind = Literal["source", "transform", "distance"]
Number = int | float

MAP: Layout = "map"
REGIONS: Layout = "regions"
SCALAR_MAP: Layout = "scalar_map"
LOGITS: Layout = "logits"
BOXES: Layout = "boxes"
CONTRAST: Layout = "contrast"
CELL_DISTRIBUTION: Layout = "cell_distribution"
CHANNEL_DISTRIBUTION: Layout = "channel_distribution"
BINARY: Layout = "binary"

FEATURES: tuple[Layout, ...] = (MAP, REGIONS)
"""Feature vectors at cells."""
DISTRIBUTIONS: tuple[Layout, ...] = (CELL_DISTRIBUTION, CHANNEL_DISTRIBUTION)
NUMBERS: tuple[Layout, ...] = (MAP, REGIONS, SCALAR_MAP, LOGITS, CELL_DISTRIBUTION, CHANNEL_DISTRIBUTION, BINARY)
"""What can be compared number by number; distributions and log-odds as probabilities."""


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
    takes: tuple[Layout, ...] = FEATURES
    gives: Layout = MAP
    gives_same: bool = False
    """The layout passes through unchanged (``gives`` does not matter)."""
    parameters: tuple[Parameter, ...] = ()
    adds: frozenset[Effect] = frozenset()
    keeps: frozenset[Effect] = frozenset()
    blind_to: frozenset[Effect] = frozenset()
    needs_taps: tuple[str, ...] = ()
    """Taps that both student and teacher must expose."""
    needs_of_student: tuple[str, ...] = ()
    needs_of_teacher: tuple[str, ...] = ()
    uses_of_student: tuple[str, ...] = ()
    """Taps of the student that are used where it has them."""
    group: str = ""
    """Transformations only: the slot of the default space that offers it."""
    is_random: bool = False
    needs_batch: bool = False
    """Statistics over several samples are part of the definition (batch 1 works, but means less)."""
    learns: bool = False
    """It has parameters of its own, or a memory: what it gives changes with training."""
    zero_at_equality: bool = True
    """False: a term with it is not 0 where student equals teacher (contrast against negatives, a generator)."""
    by_level: bool = False
    """Sources only: it gives a feature pair for each paired level."""
    side: str = ""
    """Sources only: the parameter that says how many cells a sample has per side."""
    divides_side: str = ""
    """The parameter by which the cells per side are divided, rounded up."""
    compares_cells: bool = False
    """With a single cell a sample, nothing of the input would be left."""

    def parameter(self, name: str) -> Parameter:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        allowed = [p.name for p in self.parameters]
        raise SpecError(f"{self.kind} '{self.name}' has " + one_of(name, allowed, noun="no such parameter:"))

    def missing(self, student: Iterable[str], teacher: Iterable[str]) -> tuple[str, ...]:
        """The taps that a pair lacks for this operator, each as "the student's boxes"."""
        return tuple(
            f"the {owner}'s {tap}"
            for owner, present, needs in (
                ("student", set(student), self.needs_taps + self.needs_of_student),
                ("teacher", set(teacher), self.needs_taps + self.needs_of_teacher),
            )
            for tap in needs
            if tap not in present
        )


def effects(*names: Effect) -> frozenset[Effect]:
    return frozenset(names)


__all__ = [
    "BINARY",
    "BOXES",
    "CELL_DISTRIBUTION",
    "CHANNEL_DISTRIBUTION",
    "CONTRAST",
    "DISTRIBUTIONS",
    "FEATURES",
    "LOGITS",
    "MAP",
    "NUMBERS",
    "REGIONS",
    "SCALAR_MAP",
    "Effect",
    "Kind",
    "Layout",
    "Number",
    "Operator",
    "Parameter",
    "effects",
]
