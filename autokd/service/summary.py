"""A summary of a run for the list of searches: progress, the best so far beside none, the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autokd.errors import StorageError
from autokd.jobs import NO_DISTILLATION
from autokd.storage import Results, RunProgress


def summary_of(run_dir: Path) -> dict[str, Any]:
    """Return what a run directory says about how far the run is, as plain data; empty before it says anything.

    Args:
        run_dir: run directory.
    """
    progress = RunProgress.read(run_dir)
    found: dict[str, Any] = {} if progress is None else progress.summary()
    path = run_dir / "results.json"
    if path.is_file():
        try:
            found |= _of_results(Results.read(path))
        except StorageError:
            return found
    return found


def _of_results(results: Results) -> dict[str, Any]:
    test_ap = {entry.name: _mean(entry.test_ap) for entry in results.entries}
    return {
        "winner": results.winner,
        "winner_ap": test_ap.get(results.winner),
        "none_ap": test_ap.get(NO_DISTILLATION),
        "seconds": results.search.seconds,
    }


def _mean(values: tuple[float | None, ...]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
