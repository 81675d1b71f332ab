"""Digests of the files that a configuration names: a run that is resumed must find the same contents there.

The digest of the configuration sees the names of these files alone, so digests of their contents are kept beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from autokd.config import DetectorSection, ResolvedConfig
from autokd.data import Datasets
from autokd.detectors import framework_of
from autokd.errors import StorageError
from autokd.files import digest_of
from autokd.training import file_digest


def contents_of(config: ResolvedConfig, datasets: Datasets) -> dict[str, str]:
    """Return place in the config file -> digest of what it names: data, checkpoints, and a framework's own files."""
    # Not "data.NAME", under which older versions of AutoKD kept another digest of the same files.
    found = {f"data.{name}.files": getattr(datasets, name).fingerprint for name in ("train", "val", "test")}
    found |= _of_detector("student", config.student)
    if config.full.pipeline == "student_config":
        pipeline = framework_of(config.student).train_pipeline(config.student, config.full.epochs)
        found["student.pipeline"] = "" if pipeline is None else pipeline.digest
    for i, teacher in enumerate(config.teachers):
        found |= _of_detector("teacher" if len(config.teachers) == 1 else f"teacher[{i}]", teacher)
    return found


def _of_detector(place: str, section: DetectorSection) -> dict[str, str]:
    texts = framework_of(section).contents(section)
    found = {f"{place}.{field}": digest_of(structure=text) for field, text in texts.items()}
    if section.checkpoint is not None:
        found[f"{place}.checkpoint"] = file_digest(section.checkpoint)
    return found


def check_same_contents(there: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Check that a run continues with the contents with which it began.

    Args:
        there: place -> digest, as stored when the run began.
        here: place -> digest now. A place that ``there`` lacks counts as unchanged: its run began before AutoKD
            recorded such a place.

    Raises:
        StorageError: naming the places whose contents differ.
    """
    changed = [place for place in here if there.get(place, here[place]) != here[place]]
    if changed:
        raise StorageError(
            f"the files behind {', '.join(changed)} have changed since this run began, and its numbers are of the old "
            "ones. Restore them to resume it, or begin a new run with another --run-dir (and 'name', if it shares a "
            "--storage)."
        )
