"""Published distillers as specs: one YAML file each, with its paper and its published weights. Torch-free."""

from __future__ import annotations

from pathlib import Path

from autokd.errors import SpecError, one_of
from autokd.spec import DistillerSpec

_FOLDER = Path(__file__).parent


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def load_preset(name: str) -> DistillerSpec:
    """Return a published distiller.

    Args:
        name: one of ``preset_names()``.

    Raises:
        SpecError: if there is no such preset; the message has the most similar name.
    """
    if name not in preset_names():
        raise SpecError(one_of(name, preset_names(), noun="preset"))
    return DistillerSpec.from_yaml(_FOLDER / f"{name}.yaml")


def load_distiller(name: str) -> DistillerSpec:
    """Return a preset by its name, or the distiller of a YAML file by its path.

    Args:
        name: a preset's name, or a path.

    Raises:
        ConfigError: if there is no such preset and no such file, or the file cannot be read.
        SpecError: if the file does not describe a distiller.
    """
    return load_preset(name) if name in preset_names() else DistillerSpec.from_yaml(Path(name))


__all__ = ["load_distiller", "load_preset", "preset_names"]
