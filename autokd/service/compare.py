"""Two to four searches side by side, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autokd.errors import ConfigError, StorageError
from autokd.service.database import Search
from autokd.storage import Results

LEAST, MOST = 2, 4


def compared(searches: list[tuple[Search, Path]]) -> list[dict[str, Any]]:
    """Return for each search its summary, and the entries of its results.

    Args:
        searches: searches with their run directories.

    Raises:
        ConfigError: if there are fewer than two or more than four.
    """
    if not LEAST <= len(searches) <= MOST:
        raise ConfigError(f"found {len(searches)} searches; compare {LEAST} to {MOST}.")
    return [_column(search, run_dir) for search, run_dir in searches]


def _column(search: Search, run_dir: Path) -> dict[str, Any]:
    column = {"id": search.id, "name": search.name, "state": search.state, "trials": search.trials}
    column |= {key: search.summary.get(key) for key in ("best", "best_formula", "winner", "winner_ap", "none_ap")}
    try:
        results = Results.read(run_dir / "results.json")
    except StorageError:
        return column | {"entries": []}
    entries = [
        {"name": entry.name, "formula": entry.formula, "digest": entry.digest, "seeds": entry.seeds,
         "val_ap": entry.val_ap, "test_ap": entry.test_ap}
        for entry in results.entries
    ]  # fmt: skip
    return column | {"entries": entries}
