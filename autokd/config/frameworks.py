"""The table of detector frameworks: one row each, from the name in a file to what reads and builds its section.

A package of its own adds its row under the entry point group ``autokd.frameworks``. Torch-free: an implementation is
named here, and imported by ``autokd.detectors`` when the first detector of its framework is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from autokd.config.backbone_section import BackboneTeacher
from autokd.config.detector_sections import DetectorSection, MmdetDetector
from autokd.config.torchvision_section import TorchvisionDetector
from autokd.config.transformers_section import TransformersDetector
from autokd.errors import ConfigError, one_of

ORDINARY_FRAMEWORK = "torchvision"
"""Framework of a section that names none."""


@dataclass(frozen=True)
class FrameworkRow:
    """A detector framework.

    Args:
        section: its configuration section; the default of ``framework``, or its only value, is the framework's name.
        implementation: ``"module:attribute"`` of an ``autokd.detectors.Framework`` without constructor arguments, or
            such a class itself. The text keeps the row free of torch.
    """

    section: type[DetectorSection]
    implementation: str | type[Any]

    @property
    def name(self) -> str:
        """Value of ``framework`` in the user's file."""
        (name,) = getattr(self.section.model_fields["framework"].annotation, "__args__", (None,))
        return str(name)


FRAMEWORKS = (
    FrameworkRow(TorchvisionDetector, "autokd.detectors.torchvision.framework:TorchvisionFramework"),
    FrameworkRow(MmdetDetector, "autokd.detectors.mmdet.framework:MmdetFramework"),
    FrameworkRow(TransformersDetector, "autokd.detectors.transformers.framework:TransformersFramework"),
    FrameworkRow(BackboneTeacher, "autokd.detectors.backbone.framework:BackboneFramework"),
)
"""Frameworks that come with AutoKD."""

_registered: list[FrameworkRow] = []
"""Rows of this process alone: of tests and notebooks. Workers of Ray are other processes and do not see them."""


def framework_rows() -> tuple[FrameworkRow, ...]:
    """Return the rows of AutoKD, of installed packages and of this process, in this order."""
    return (*FRAMEWORKS, *third_party_rows(), *_registered)


def framework_row(name: str) -> FrameworkRow:
    """Return the row of a framework.

    Args:
        name: value of ``framework`` in a file.

    Raises:
        ConfigError: if there is no framework of that name.
    """
    rows = {row.name: row for row in framework_rows()}
    if name not in rows:
        raise ConfigError(one_of(name, list(rows), noun="framework"))
    return rows[name]


def register_framework(row: FrameworkRow) -> None:
    """Add a framework in this process; a package that is installed uses the entry point group instead.

    Args:
        row: the framework.

    Raises:
        ConfigError: if the name is taken, or the section lacks ``checkpoint`` or ``train``.
    """
    _check_row(row, {known.name for known in framework_rows()})
    _registered.append(row)


@contextmanager
def registered_framework(row: FrameworkRow) -> Iterator[None]:
    """Return a context within which a framework is known, for tests; see ``register_framework``.

    Args:
        row: the framework.
    """
    register_framework(row)
    try:
        yield
    finally:
        _registered.remove(row)


@cache
def third_party_rows() -> tuple[FrameworkRow, ...]:
    """Return the rows of installed packages, which are loaded at the first call."""
    rows: list[FrameworkRow] = []
    for entry_point in metadata.entry_points(group="autokd.frameworks"):
        row = entry_point.load()
        _check_row(row, {known.name for known in (*FRAMEWORKS, *rows)})
        rows.append(row)
    return tuple(rows)


def _check_row(row: FrameworkRow, taken: set[str]) -> None:
    where = f"{row.section.__module__}.{row.section.__name__}"
    if row.name in taken:
        raise ConfigError(f"{where}: there is a framework {row.name!r} already. Give 'framework' another name there.")
    if lacking := [name for name in ("checkpoint", "train") if name not in row.section.model_fields]:
        raise ConfigError(
            f"{where}: has no field {' and no '.join(lacking)}. Declare them as TorchvisionDetector does."
        )
