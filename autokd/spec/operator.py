"""A row of the vocabulary: an operator's signature, parameters, formula and class. No torch here.

Layouts (the kind of value between two steps; S samples, C channels, H x W cells):
    map                    (S, C, H, W) any real numbers; a sample is an image or a patch
    regions                (S, C, H, W) the same; a sample is a region of a box, which has a class
    scalar_map             (S, 1, H, W) one number a cell: an attention map, or a row of a matrix of relations
    logits                 (S, K, 1, A) class logits; a cell is a candidate box
    boxes                  (S, 4, 1, A) xyxy pixels; a cell is a candidate box
    contrast               (S, 1, 1, 1 + N) similarities of a region to its partner and to N negatives
    cell_distribution      (S, C, H, W) log-probabilities, each channel of each sample sums to 1 over its cells
    channel_distribution   (S, C, H, W) log-probabilities, each cell sums to 1 over its channels
    binary                 (S, C, H, W) log-odds, each number a yes-or-no question of its own

Effects (a change by one step that a later step may be blind to). A step that is blind to a pending effect would undo
it without a trace, so the pair is refused; a step that ``keeps`` an effect commutes with it, so the effect stays
pending; any other step uses the effect up. An effect that is pending at a distance which keeps it or is blind to it
could not influence the loss, so that is refused as well.
    cell_scale             each cell multiplied by a positive number, the same for all channels
    channel_affine         each channel scaled and shifted, the same in all samples and cells
    sample_channel_scale   each channel of each sample multiplied by a positive number
    sample_channel_affine  each channel of each sample scaled and shifted, the same in all its cells
    position_scale         each channel of each cell multiplied by a positive number, the same in all samples
    grouping               cells regrouped into patches: without influence until cells are compared with each other

Sides: if the source fixes how many cells a sample has per side, steps that pool or cut change the number, and a step
that compares cells with each other is refused once a single cell is left.
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
"""Layouts that are compared number by number; distributions and log-odds as probabilities."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A numeric parameter of an operator: its default and the closed range of allowed values.

    A whole-number default makes the parameter a whole number.

    Args:
        name: the key under which a spec sets it.
        default: value if a spec leaves it out.
        low: least allowed value.
        high: greatest allowed value.
        meaning: phrase for the reference of operators and for errors, with the unit if there is one.
        omitted_at_default: whether the canonical form leaves the parameter out at its default. A parameter that an
            operator gets after distillers with it were recorded needs this: their digests then stay.
    """

    name: str
    default: Number
    low: Number
    high: Number
    meaning: str = ""
    omitted_at_default: bool = False

    @property
    def is_integer(self) -> bool:
        """Whether values are whole numbers."""
        return isinstance(self.default, int)


@dataclass(frozen=True, slots=True)
class Operator:
    """One row: the signature of a source, a transformation or a distance."""

    name: str
    """The name by which a spec names the operator, unique in its kind."""
    kind: Kind
    """"source", "transform" or "distance"."""
    implementation: str
    """The class, as "package.module:Class"; imported when a distiller is built, so that a row needs no torch."""
    formula: str
    """The formula for readers; ``x`` is the value that flows in, {name} a parameter."""
    meaning: str
    """Phrase for the reference of operators: the operator's value or its effect."""
    paper: str
    """Paper or book that defines the operator, with its section or equation."""
    takes: tuple[Layout, ...] = FEATURES
    """Layouts that the operator accepts; not read for a source."""
    gives: Layout = MAP
    """Layout of the result; not read for a distance, whose result is a number."""
    gives_same: bool = False
    """The layout passes through unchanged; ``gives`` is then not read."""
    parameters: tuple[Parameter, ...] = ()
    """Numeric parameters, in the order in which the reference lists them."""
    adds: frozenset[Effect] = frozenset()
    """Effects that are pending after the operator."""
    keeps: frozenset[Effect] = frozenset()
    """Effects that the operator commutes with: a pending one stays pending, and a distance refuses it."""
    blind_to: frozenset[Effect] = frozenset()
    """Effects that the operator would undo: it refuses to follow a step that left one pending."""
    needs_taps: tuple[str, ...] = ()
    """Taps that both student and teacher must expose."""
    needs_of_student: tuple[str, ...] = ()
    """Taps that the student must expose beside ``needs_taps``."""
    needs_of_teacher: tuple[str, ...] = ()
    """Taps that the teacher must expose beside ``needs_taps``."""
    uses_of_student: tuple[str, ...] = ()
    """Taps of the student that the operator reads if there are any."""
    group: str = ""
    """Transformations only: the slot of the default space that offers it."""
    is_random: bool = False
    """The operator draws random numbers in each step, so terms that begin alike do not share it."""
    needs_batch: bool = False
    """The definition has statistics over several samples; a batch of one image works, with less statistics."""
    learns: bool = False
    """The operator has parameters or a memory, so its output changes with training."""
    zero_at_equality: bool = True
    """False: a term with it is not 0 if student equals teacher (contrast against negatives, a generator)."""
    by_level: bool = False
    """Sources only: it gives a feature pair for each paired level."""
    side: str = ""
    """Sources only: the parameter that is the number of cells of a sample per side."""
    divides_side: str = ""
    """The parameter by which the cells per side are divided, rounded up."""
    compares_cells: bool = False
    """The operator would leave nothing of a sample that has a single cell."""

    def parameter(self, name: str) -> Parameter:
        """Return a parameter of the operator.

        Args:
            name: the parameter's name.

        Raises:
            SpecError: with the nearest name, if the operator has no such parameter.
        """
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        allowed = [p.name for p in self.parameters]
        raise SpecError(f"{self.kind} '{self.name}' has " + one_of(name, allowed, noun="no such parameter:"))

    def missing(self, student: Iterable[str], teacher: Iterable[str]) -> tuple[str, ...]:
        """Return the taps that a pair lacks for this operator, each as "the student's boxes".

        Args:
            student, teacher: names of the taps that each exposes.
        """
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
    """Return a set of effects, for the fields of a row."""
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
