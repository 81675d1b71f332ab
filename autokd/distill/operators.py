"""The three kinds of operator: source, transform, distance.

An operator is a subclass in ``sources``, ``transforms`` or ``distances`` and a row in
``autokd.spec.tables``. Its constructor takes the ``BuildContext`` and the row's parameters by keyword; it may
hold parameters (seen by the optimiser) and buffers (saved with checkpoints), and finds random numbers, boxes
and what other terms have computed already in the ``TermInputs``.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from torch import Tensor, nn

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.levels import LevelPair
from autokd.errors import DistillError
from autokd.outputs import DetectorOutputs
from autokd.spec import Operator, Step, operator_of
from autokd.spec.operator import Kind

if TYPE_CHECKING:
    from autokd.distill.term_inputs import TermInputs

Part = TypeVar("Part", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What an operator may need to know when it is made. Learned parts are made for each of ``pairs``.

    student, teacher: some outputs of the two, for shapes alone; None where an operator is made without a pair.
    """

    pairs: tuple[LevelPair, ...]
    num_classes: int
    student: DetectorOutputs | None = None
    teacher: DetectorOutputs | None = None
    parts: dict[str, nn.Module] = field(default_factory=dict)

    def part(self, name: str, make: Callable[[], Part]) -> Part:
        """A module that several operators of one distiller share, made at the first call; each keeps it as its own."""
        if name not in self.parts:
            self.parts[name] = make()
        return cast(Part, self.parts[name])


class Memory(nn.Module, ABC):
    """A part that remembers over batches, in registered buffers; told when an epoch of training begins."""

    @abstractmethod
    def begin_epoch(self, epoch: int) -> None:
        """``epoch`` is 1-based."""


class Source(nn.Module, ABC):
    """Gives the feature pairs of a batch, usually one a paired level; a term is the sum over them."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]: ...


class Transform(nn.Module, ABC):
    """Changes a feature pair, student and teacher together.

    Most transforms treat both sides by one formula and override ``change``; those that draw random numbers or
    change grid, layout or weights override ``forward``.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__()

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        student = self.change(features.student_SCHW, features)
        return features.with_maps(student, self.change(features.teacher_SCHW, features))

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        """Return the new map of one side."""
        raise NotImplementedError


class Distance(nn.Module, ABC):
    """How far the student is from the teacher: a scalar >= 0, 0 where they are equal (``zero_at_equality``).

    A mean over what counts; 0, still connected to the graph, where nothing does.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, features: FeaturePair, inputs: TermInputs) -> Tensor: ...


_BASES: dict[Kind, type[nn.Module]] = {"source": Source, "transform": Transform, "distance": Distance}


def make_operator(kind: Kind, step: Step, context: BuildContext) -> nn.Module:
    """Make the operator of a step. DistillError if the row's class is missing or of another kind."""
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
