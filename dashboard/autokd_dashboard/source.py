"""Find the database that a dashboard shows: study.db of a run, a SQLite file, or an address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autokd.errors import StorageError
from autokd.storage import Results, open_proxy, read_address, shown, storage_url

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

STUDY_NAME = "study.db"
RESULTS_NAME = "results.json"


def open_storage(run_or_url: str | Path) -> BaseStorage:
    """Return the storage of a run directory, a SQLite file or an address.

    Args:
        run_or_url: run directory, SQLite file or URL of a database.

    Raises:
        StorageError: if there is no study, or the database cannot be read.
    """
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    url = database_of(run_or_url)
    try:
        # No tables are created: a wrong address must not leave an empty database behind.
        storage = open_proxy(url) or RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
        studies = storage.get_all_studies()
    except (SQLAlchemyError, StorageInternalError, ImportError, OSError) as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        raise StorageError(
            f"{shown(run_or_url)}: the studies cannot be read: {reason}. Check that this is a database of Optuna's "
            "and that its server runs."
        ) from error
    if not studies:
        raise StorageError(f"{shown(run_or_url)}: there is no study in this database yet. Start the search first.")
    return storage


def database_of(run_or_url: str | Path) -> str:
    """Return the address of the database of a run directory, a file or an address.

    Args:
        run_or_url: run directory, SQLite file or URL of a database.

    Raises:
        StorageError: if there is no such file.
    """
    text = run_or_url if isinstance(run_or_url, Path) else read_address(run_or_url)
    text = str(text)
    if "://" in text and not text.startswith("sqlite:///"):
        return storage_url(text)
    path = Path(text.removeprefix("sqlite:///"))
    path = path / STUDY_NAME if path.is_dir() else path
    if not path.is_file():
        raise StorageError(
            f"{path}: there is no such database. Give a run directory, its {STUDY_NAME}, or the address that the "
            "search was started with (--storage)."
        )
    return storage_url(path)


def results_of(run_or_url: str | Path) -> Results | None:
    """Return the results of a run directory, or None if there are none yet.

    Args:
        run_or_url: run directory; the URL of a database has no results.
    """
    path = Path(run_or_url) / RESULTS_NAME
    return Results.read(path) if path.is_file() else None
