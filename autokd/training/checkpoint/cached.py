"""Checkpoints of what is trained into the cache: teachers and warm starts."""

from __future__ import annotations

from pathlib import Path

from autokd.training.checkpoint.checkpoints import CHECKPOINTS_FOLDER, CheckpointFile, Checkpoints


def cached_checkpoints(cache_dir: Path, kind: str, key: str, every_s: float | None) -> Checkpoints:
    """Return the checkpoints of a training whose result goes into the cache; one process trains it at a time.

    Args:
        cache_dir: folder of the cache.
        kind: "teacher" or "warm_start".
        key: digest of all that the result depends on.
        every_s: seconds between two checkpoints; None: none.
    """
    if every_s is None:
        return Checkpoints()
    return CheckpointFile(cache_dir / CHECKPOINTS_FOLDER / f"{kind}-{key}.checkpoint", f"{kind}-{key}", every_s)
