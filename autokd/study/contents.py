"""What stands behind the paths of a space file: a run that is resumed must find the same there.

The configuration names files; its digest sees their names alone. So the digests of their contents are kept beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from autokd.config import Detector, RunConfig
from autokd.data import Datasets
from autokd.detectors import structure_text
from autokd.errors import StorageError
from autokd.files import digest_of
from autokd.training import file_digest


def contents_of(config: RunConfig, datasets: Datasets) -> dict[str, str]:
    """Place in the space file -> digest of what it names: models as MMDetection's configs describe them, with their
    bases and options; checkpoints; data."""
    found = {f"data.{name}": getattr(datasets, name).fingerprint for name in ("train", "val", "test")}
    found |= _of_detector("student", config.student)
    for i, teacher in enumerate(config.teachers):
        found |= _of_detector("teacher" if len(config.teachers) == 1 else f"teacher[{i}]", teacher)
    return found


def _of_detector(place: str, section: Detector) -> dict[str, str]:
    found = {}
    if section.framework == "mmdet":
        found[f"{place}.config"] = digest_of(structure=structure_text(section))
    if section.checkpoint is not None:
        found[f"{place}.checkpoint"] = file_digest(section.checkpoint)
    return found


def check_same_contents(there: Mapping[str, str], here: Mapping[str, str]) -> None:
    """StorageError, naming the places, where a run began with other contents; what is new to it is no difference."""
    changed = [place for place in here if there.get(place, here[place]) != here[place]]
    if changed:
        raise StorageError(
            f"the files behind {', '.join(changed)} have changed since this run began, and its numbers are of the old "
            "ones. Restore them to resume it, or begin a new run with another --run-dir (and 'name', if it shares a "
            "--storage)."
        )
