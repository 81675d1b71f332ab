"""Published distillers as specs: one YAML file each, with its paper and its published weights. Torch-free.

A preset that was published with other weights or terms for other detectors has a list of terms for each family of
detectors (``autokd.spec.families``); the pair's family, its student's, chooses among them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from autokd.documents import load_document
from autokd.errors import SpecError, one_of
from autokd.spec import DistillerSpec
from autokd.spec.text import families_of_document

_FOLDER = Path(__file__).parent


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


@lru_cache(maxsize=256)  # specs are frozen, and YAML with line numbers takes tens of milliseconds to read
def load_preset(name: str, family: str | None = None) -> DistillerSpec:
    """Return a published distiller, with the weights that were published for a family of detectors.

    Args:
        name: one of ``preset_names()``.
        family: family of the student: "anchor_based", "anchor_free", "one_stage" (either of them) or "two_stage";
            None: unknown. A preset without terms for it gives those of ``one_stage``, or its default; the spec's
            ``family`` says whose they are.

    Raises:
        SpecError: if there is no such preset or family; the message has the most similar name.
    """
    return DistillerSpec.from_yaml(_path_of(name), family)


def load_distiller(name: str, family: str | None = None) -> DistillerSpec:
    """Return a preset by its name, or the distiller of a YAML file by its path.

    Args:
        name: a preset's name, or a path.
        family: family of the student, which chooses among the families of the preset or of the file; None: unknown.

    Raises:
        ConfigError: if there is no such preset and no such file, or the file cannot be read.
        SpecError: if the file does not describe a distiller, or there is no such family.
    """
    return load_preset(name, family) if name in preset_names() else DistillerSpec.from_yaml(Path(name), family)


def families_of(name: str) -> tuple[str, ...]:
    """Return the families of detectors for which a preset, or a distiller's file, has terms of its own, in its order.

    Args:
        name: a preset's name, or a path.

    Returns:
        Names of families; the file's label alone ("any", or one family), or nothing, if it has the same terms for all
        detectors.

    Raises:
        ConfigError: if there is no such preset and no such file, or the file cannot be read.
        SpecError: if the file does not describe a distiller.
    """
    return families_of_document(load_document(_path_of(name) if name in preset_names() else Path(name)))


def _path_of(name: str) -> Path:
    if name not in preset_names():
        raise SpecError(one_of(name, preset_names(), noun="preset"))
    return _FOLDER / f"{name}.yaml"


__all__ = ["families_of", "load_distiller", "load_preset", "preset_names"]
