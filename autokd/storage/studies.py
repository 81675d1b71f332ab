"""Opening Optuna studies: a file (SQLite) or the address of a database (PostgreSQL, ...)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from sqlalchemy import create_engine, event, inspect, make_url
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from autokd.errors import StorageError

_BUSY_TIMEOUT_S = 60.0
_ALLOWED = "AutoKD takes the path of a SQLite file, or an address such as postgresql+psycopg://user@host/db."


def open_study(
    url_or_path: str | Path,
    name: str,
    *,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    direction: Literal["minimize", "maximize"] = "maximize",
) -> optuna.Study:
    """Open the study ``name``, making it and its database where they do not exist.

    StorageError where the database does not answer, or the study exists with another direction.
    """
    url = _url(url_or_path)
    storage = _storage(url)
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=sampler,
        pruner=pruner or NopPruner(),
        direction=direction,
        load_if_exists=True,
    )
    if [found.name.lower() for found in study.directions] != [direction]:
        found_names = ", ".join(found.name.lower() for found in study.directions)
        raise StorageError(
            f"{_shown(url)}: study {name!r} has the direction {found_names}, this search has {direction}: it belongs "
            "to something else. Choose another name or another storage."
        )
    return study


def open_existing(url_or_path: str | Path, name: str | None = None) -> optuna.Study:
    """Open a study to read it; ``name`` may be left out where the database holds one only.

    ``url_or_path`` may be a run directory. StorageError where there is no such database or study.
    """
    if isinstance(url_or_path, Path) or "://" not in url_or_path:
        path = Path(url_or_path)
        url_or_path = path / "study.db" if path.is_dir() else path
    url = _url(url_or_path)
    if url.get_backend_name() == "sqlite" and not (url.database and Path(url.database).is_file()):
        raise StorageError(
            f"{_shown(url)}: there is no such database. Give a run directory, its study.db, or an address."
        )
    if not _has_tables(url):
        raise StorageError(f"{_shown(url)}: it holds no study yet. Wait until a search has begun, or give another.")
    storage = _storage(url)
    names = optuna.get_all_study_names(storage)
    if name is None and len(names) == 1:
        [name] = names
    if name is None or name not in names:
        several = "it holds several studies; name one" if names else "it holds no study yet"
        asked = several if name is None else f"it holds no study {name!r}"
        raise StorageError(f"{_shown(url)}: {asked}. Studies there: {', '.join(names) or 'none'}.")
    return optuna.load_study(study_name=name, storage=storage)


def storage_url(url_or_path: str | Path) -> str:
    """The address that Optuna's own tools (optuna-dashboard) take for the same database."""
    return _url(url_or_path).render_as_string(hide_password=False)


def _url(url_or_path: str | Path) -> URL:
    text = str(url_or_path)
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).absolute()))
    try:
        return make_url(text)
    except ArgumentError as error:
        raise StorageError(f"the storage {text!r} is no address: {error}. {_ALLOWED}") from error


def _storage(url: URL) -> optuna.storages.BaseStorage:
    """Optuna's storage over SQLAlchemy; a SQLite file is put into WAL mode, so that readers do not block."""
    is_file = url.get_backend_name() == "sqlite"
    engine_kwargs = {"connect_args": {"timeout": _BUSY_TIMEOUT_S}} if is_file else {"pool_pre_ping": True}
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        if is_file and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            _use_write_ahead_log(url)
        rdb = optuna.storages.RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=engine_kwargs)
    except (NoSuchModuleError, ImportError) as error:
        raise StorageError(
            f"{_shown(url)}: its driver is not installed ({error}). For PostgreSQL: pip install "
            '"autokd[postgresql]" and write postgresql+psycopg://. ' + _ALLOWED
        ) from error
    except (DBAPIError, OSError, RuntimeError) as error:
        reason = str(getattr(error, "orig", None) or error).strip()
        raise StorageError(
            f"{_shown(url)}: the database cannot be opened: {reason}\n"
            "Check that the address is right, the server runs, and the folder can be written."
        ) from error
    if is_file:
        _relax_synchronisation(rdb.engine)
    return rdb


def _has_tables(url: URL) -> bool:
    """Whether Optuna's tables are there: a reader makes none, since a search may be making them at this moment."""
    engine = create_engine(url)
    try:
        return inspect(engine).has_table("alembic_version")
    except DBAPIError:
        return True  # what is wrong is told where the database is opened
    finally:
        engine.dispose()


def _use_write_ahead_log(url: URL) -> None:
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    finally:
        engine.dispose()


def _relax_synchronisation(engine: Engine) -> None:
    """In WAL mode NORMAL survives a killed process; only a power cut may lose the last commits."""

    @event.listens_for(engine, "connect")
    def _set(connection: object, record: object) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")  # type: ignore[attr-defined]

    engine.dispose()


def _shown(url: URL) -> str:
    """The address without its password."""
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)
