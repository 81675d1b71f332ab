"""Published distillers, written as specs: one YAML file each, with its paper and its published weight. Torch-free."""

from __future__ import annotations

from pathlib import Path

from autokd.errors import SpecError, one_of
from autokd.spec import DistillerSpec

_FOLDER = Path(__file__).parent


def preset_names() -> tuple[str, ...]:
    """Names that ``load_preset`` takes, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def load_preset(name: str) -> DistillerSpec:
    """Return the published distiller ``name``; SpecError with the nearest name where there is none."""
    if name not in preset_names():
        raise SpecError(one_of(name, preset_names(), noun="preset"))
    return DistillerSpec.from_yaml(_FOLDER / f"{name}.yaml")


def load_distiller(name: str) -> DistillerSpec:
    """A preset by name, or a distiller's YAML file by its path."""
    return load_preset(name) if name in preset_names() else DistillerSpec.from_yaml(Path(name))


__all__ = ["load_distiller", "load_preset", "preset_names"]
