"""The base of every section of a config file, and types of values that several sections hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

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
Seeds = Annotated[tuple[int, ...], AfterValidator(_distinct_seeds)]

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
SizePx = tuple[Annotated[int, Field(ge=32, le=4096)], Annotated[int, Field(ge=32, le=4096)]]


class Section(BaseModel):
    """Base of every section: frozen, without unknown keys. The string below a field is its text in the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    written_if_set: ClassVar[frozenset[str]] = frozenset()
    """Fields that resolved files and digests have only if they differ from their default, since earlier ones, which
    must stay equal, have no such field."""

    def unwritten(self) -> set[str]:
        """Return the names of the fields that are left out of a resolved file."""
        fields = type(self).model_fields
        return {name for name in self.written_if_set if getattr(self, name) == fields[name].default}

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unwritten = self.unwritten()
        return {name: value for name, value in write(self).items() if name not in unwritten}
