"""The three kinds of operator: source, transform, distance.

An operator is a subclass in ``sources``, ``transforms`` or ``distances`` and a row in ``autokd.spec.tables``. Its
constructor takes the ``BuildContext`` and the row's parameters by keyword. It may hold parameters (the optimizer trains
them) and buffers (checkpoints save them), and reads random numbers, boxes and values that other terms have computed
from the ``TermInputs``.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar, cast

from torch import Tensor, nn

from autokd.detector_outputs import DetectorOutputs
from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.levels import LevelPair
from autokd.distill.term_inputs import TermInputs
from autokd.errors import DistillError
from autokd.spec import Operator, Step, operator_of
from autokd.spec.operator import Kind
from autokd.spec.terms import Adapter

Part = TypeVar("Part", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class BuildContext:
    """The pair of detectors for which an operator is made.

    Args:
        pairs: paired levels; a learned operator makes a part for each.
        num_classes: classes of the data set.
        student, teacher: some outputs of the two, for their shapes; None if an operator is made without a pair.
        parts: modules that operators share, by name; filled by ``part``.
        adapter: what the student's maps pass in the term that the operator is made for.
    """

    pairs: tuple[LevelPair, ...]
    num_classes: int
    student: DetectorOutputs | None = None
    teacher: DetectorOutputs | None = None
    parts: dict[str, nn.Module] = field(default_factory=dict)
    adapter: Adapter = "linear"

    def part(self, name: str, make: Callable[[], Part]) -> Part:
        """Return a module that several operators of one distiller share, made at the first call.

        Each registers it as its own submodule; torch lists its parameters once.
        """
        if name not in self.parts:
            self.parts[name] = make()
        return cast(Part, self.parts[name])


class Memory(nn.Module, ABC):
    """A part that keeps something from batch to batch, in registered buffers, and renews it every epoch."""

    @abstractmethod
    def begin_epoch(self, epoch: int) -> None:
        """Renew what is kept.

        Args:
            epoch: the epoch that begins, from 1.
        """


class Source(nn.Module, ABC):
    """Gives the feature pairs of a batch, usually one a paired level; a term is the sum over them."""

    kept: tuple[int, ...] | None = None
    """Indices of the paired levels whose pairs are wanted, if the term names levels; None for all."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.adapter = context.adapter

    def maps(self, inputs: TermInputs, level: int) -> tuple[Tensor, Tensor]:
        """Return student and teacher at a paired level, the student's through the term's adapter.

        Args:
            inputs: of the step.
            level: index among the paired levels.
        """
        return inputs.maps(level, self.adapter)

    def levels(self, inputs: TermInputs) -> Sequence[int]:
        """Return the indices of the paired levels whose pairs are wanted; a source need not make others."""
        return range(len(inputs.pairs)) if self.kept is None else self.kept

    def pairs_of(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        """Return the pairs of the wanted levels, also of a source that makes those of all levels."""
        found: tuple[FeaturePair, ...] = self(inputs)
        return found if self.kept is None else tuple(pair for pair in found if pair.level in self.kept)

    @abstractmethod
    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        """Return the feature pairs of a batch; ``by_level`` rows give one for each of ``levels(inputs)``."""


class Transform(nn.Module, ABC):
    """Changes a feature pair, student and teacher together.

    A transformation with one formula for both sides overrides ``change``; one that draws random numbers, or changes
    grid, layout or weights, overrides ``forward``.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__()

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        """Return the pair after this step, made by ``features.with_maps``."""
        student = self.change(features.student_SCHW, features)
        return features.with_maps(student, self.change(features.teacher_SCHW, features))

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        """Return the new map of one side.

        Args:
            x_SCHW: the map of the student or of the teacher.
            features: the pair that it belongs to, for layout and cells that count.
        """
        raise NotImplementedError


class Distance(nn.Module, ABC):
    """A distance from student to teacher: a scalar at least 0, and 0 if they are equal (``zero_at_equality``).

    It is a mean over the cells that count; 0, still connected to the graph, if no cell does.
    """

    is_scale_free: ClassVar[bool] = False
    """Whether the distance brings what it compares to length 1 itself: a value of 1e-10 is then rounding, of maps of
    any scale."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor:
        """Return the distance as a scalar in the maps' type."""


_BASES: dict[Kind, type[nn.Module]] = {"source": Source, "transform": Transform, "distance": Distance}


def make_operator(kind: Kind, step: Step, context: BuildContext) -> nn.Module:
    """Make the operator of a step.

    Args:
        kind: the kind of operator that the step names.
        step: its name and parameters; those left out have their defaults.
        context: the pair that it is made for.

    Raises:
        SpecError: if there is no such operator or parameter.
        DistillError: if the row's class cannot be imported or is of another kind, or the pair does not fit.
    """
    row = operator_of(kind, step.name)
    return _class_of(row)(context, **step.settings(kind))


def _class_of(row: Operator) -> type[nn.Module]:
    module_name, _, class_name = row.implementation.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise DistillError(
            f"{row.kind} '{row.name}': its class {row.implementation} cannot be loaded ({error}). "
            "Correct 'implementation' in the operator's row, or install the package that holds it."
        ) from error
    base = _BASES[row.kind]
    if not (isinstance(found, type) and issubclass(found, base)):
        raise DistillError(f"{row.kind} '{row.name}': {row.implementation} is no subclass of {base.__qualname__}.")
    return found
