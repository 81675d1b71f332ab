"""The base of every section of a config file, and types of values that several sections hold."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from autokd.errors import one_of
from autokd.jobs import NO_DISTILLATION
from autokd.presets import preset_names


def _known_distiller(name: str) -> str:
    """A preset's name, or the path of a distiller's YAML file."""
    if name in preset_names() or Path(name).suffix in (".yaml", ".yml"):
        return name
    raise ValueError(one_of(name, preset_names(), noun="preset") + " Or give a distiller's YAML file.")


PORTFOLIO = "portfolio"
"""Name in ``search.enqueue`` of the distillers that were best over recorded pairs."""


def _known_first(name: str) -> str:
    return name if name == PORTFOLIO else _known_distiller(name)


def _known_baseline(name: str) -> str:
    if name == NO_DISTILLATION:
        return name
    if name not in preset_names() and Path(name).suffix not in (".yaml", ".yml"):
        raise ValueError(one_of(name, [NO_DISTILLATION, *preset_names()], noun="baseline"))
    return name


def _distinct_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"found {list(seeds)}, in which a seed appears twice. Keep one of the two")
    return seeds


QueuedName = Annotated[str, AfterValidator(_known_first)]
BaselineName = Annotated[str, AfterValidator(_known_baseline)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_distinct_seeds)]


def _leaves(annotation: Any) -> Iterator[Any]:
    """Yield what an annotation is made of: types, and the words of literals."""
    arguments = get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _leaves(argument)


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class ValueOfKeyError(ValueError):
    """The value of one key of a section is wrong, found before pydantic looks at it.

    Args:
        key: the key.
        message: what was found, and the remedy.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def _refuse_odd_number(value: Any, kinds: Container[Any], key: str) -> None:
    if isinstance(value, bool) and bool not in kinds:
        raise ValueOfKeyError(key, f"found {str(value).lower()}, which is no number. Write one")
    if isinstance(value, str) and str not in kinds and Path not in kinds and _reads_as_number(value):
        raise ValueOfKeyError(key, f"found {value[:80]!r}, a text. Write the number without quotes and underscores")
    if isinstance(value, int) and "seed" not in key and abs(value) > LARGEST_COUNT:
        raise ValueOfKeyError(key, f"found {value}, more than {LARGEST_COUNT:,}. Write a smaller number")


LARGEST_COUNT = 10**9
"""Largest whole number of a config file that is no seed: no run has as many trials, images, workers or epochs."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
SizePx = tuple[Annotated[int, Field(ge=32, le=4096)], Annotated[int, Field(ge=32, le=4096)]]


class Section(BaseModel):
    """Base of every section: frozen, without unknown keys. The string below a field is its text in the reference."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    written_if_set: ClassVar[frozenset[str]] = frozenset()
    """Fields that resolved files and digests have only if they differ from their default, since earlier ones, which
    must stay equal, have no such field."""

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_written_as_numbers(cls, data: Any) -> Any:
        """Refuse what pydantic would turn into a number: yes and no, and digits in quotes."""
        for name, value in data.items() if isinstance(data, dict) else ():
            field = cls.model_fields.get(name)
            kinds = set() if field is None else set(_leaves(field.annotation))
            if {int, float} & kinds:
                for item in value if isinstance(value, (list, tuple)) else [value]:
                    _refuse_odd_number(item, kinds, str(name))
        return data

    def unwritten(self) -> set[str]:
        """Return the names of the fields that are left out of a resolved file."""
        fields = type(self).model_fields
        return {name for name in self.written_if_set if getattr(self, name) == fields[name].default}

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unwritten = self.unwritten()
        return {name: value for name, value in write(self).items() if name not in unwritten}
