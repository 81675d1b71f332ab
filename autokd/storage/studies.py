"""Open Optuna studies in a file (SQLite) or in a database by its address (PostgreSQL, ...)."""

from __future__ import annotations

import logging
import os
import random
import re
import time
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from sqlalchemy import create_engine, event, inspect
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, ProgrammingError

from autokd.errors import StorageError
from autokd.storage.address import ALLOWED_ADDRESSES, parse_address, shown, without_secrets
from autokd.storage.grpc_proxy import SCHEME, open_proxy
from autokd.storage.patient import PatientStorage

_BUSY_TIMEOUT_S = 60.0
"""Seconds that SQLite waits for another process's commit before it gives up."""

_ATTEMPTS = 20
"""Attempts to open a database in which others are making tables."""


def open_study(
    url_or_path: str | Path,
    name: str,
    *,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    direction: Literal["minimize", "maximize"] = "maximize",
) -> optuna.Study:
    """Open a study; make it and its database if they do not exist.

    Args:
        url_or_path: path of a SQLite file, or address of a database.
        name: name of the study.
        sampler: sampler of new trials; None: Optuna's default.
        pruner: pruner of running trials; None: none is pruned.
        direction: whether a greater value is better.

    Returns:
        The study, with all trials that the database holds of it.

    Raises:
        StorageError: if the database cannot be opened, or holds a study of that name with another direction.
    """
    url = parse_address(url_or_path)
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
            f"{shown(url)}: study {name!r} has the direction {found_names}, and this search {direction}: it is not "
            "AutoKD's. Choose another name or another storage."
        )
    return study


def open_existing(url_or_path: str | Path, name: str | None = None) -> optuna.Study:
    """Open a study that exists, to read it.

    Args:
        url_or_path: run directory, path of a SQLite file, or address of a database.
        name: name of the study; None: the only one in the database.

    Returns:
        The study.

    Raises:
        StorageError: if there is no such database or study.
    """
    if os.path.isdir(url_or_path):
        url_or_path = Path(url_or_path) / "study.db"
    url = parse_address(url_or_path)
    if url.get_backend_name() == "sqlite" and not (url.database and Path(url.database).is_file()):
        raise StorageError(
            f"{shown(url)}: there is no such database. Give a run directory, its study.db, or an address."
        )
    if not _has_tables(url):
        raise StorageError(
            f"{shown(url)}: the database holds no study yet. Wait until a search has begun, or name another database."
        )
    storage = _storage(url)
    names = optuna.get_all_study_names(storage)
    if name is None and len(names) == 1:
        [name] = names
    if name is None or name not in names:
        several = "it holds several studies; name one" if names else "it holds no study yet"
        asked = several if name is None else f"it holds no study {name!r}"
        raise StorageError(f"{shown(url)}: {asked}. Studies there: {', '.join(names) or 'none'}.")
    return optuna.load_study(study_name=name, storage=storage)


def storage_url(url_or_path: str | Path) -> str:
    """Return the address by which Optuna's own tools, such as optuna-dashboard, open the same database.

    Args:
        url_or_path: path of a SQLite file, or address of a database. A password in it is kept.

    Raises:
        StorageError: if it is no address.
    """
    return parse_address(url_or_path).render_as_string(hide_password=False)


def _storage(url: URL) -> optuna.storages.BaseStorage:
    """Return a storage that bears hiccups of its database."""
    inner = open_proxy(url) or _relational(url)
    # Its methods are made in a loop, which mypy does not follow.
    return PatientStorage(inner, shown(url))  # type: ignore[abstract]


def _relational(url: URL) -> optuna.storages.BaseStorage:
    """Return Optuna's storage over SQLAlchemy; a SQLite file is put into WAL mode, so that readers do not block."""
    is_file = url.get_backend_name() == "sqlite"
    engine_kwargs: dict[str, Any] = {"pool_pre_ping": True}
    if is_file:
        engine_kwargs = {"connect_args": {"timeout": _BUSY_TIMEOUT_S}}
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        if is_file and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            _use_write_ahead_log(url)
        rdb = _with_tables(url.render_as_string(hide_password=False), engine_kwargs)
    except (NoSuchModuleError, ImportError) as error:
        raise StorageError(
            f"{shown(url)}: its driver is not installed ({error}). For PostgreSQL: pip install "
            '"autokd[postgresql]" and write postgresql+psycopg://. ' + ALLOWED_ADDRESSES
        ) from error
    except (DBAPIError, StorageInternalError, ArgumentError, OSError, RuntimeError) as error:
        reason = without_secrets(str(getattr(error, "orig", None) or error).strip(), url)
        raise StorageError(
            f"{shown(url)}: the database cannot be opened: {reason}\n"
            "Check that the address is right, the server runs, and the folder can be written."
        ) from error
    if is_file:
        _relax_synchronization(rdb.engine)
    return optuna.storages.get_storage(rdb)


def _with_tables(address: str, engine_kwargs: dict[str, Any]) -> optuna.storages.RDBStorage:
    """Open a database and make Optuna's tables if there are none.

    Optuna looks for each before it makes it. Of drivers that open an empty database at one moment, all but one fail at
    a table, a type or a version that another has just made; a moment later they find it.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return optuna.storages.RDBStorage(address, engine_kwargs=engine_kwargs)
        except (IntegrityError, ProgrammingError, StorageInternalError) as error:
            if attempt + 1 == _ATTEMPTS or not _is_made_twice(error):
                raise
        time.sleep(random.uniform(0.1, 0.5))
    raise AssertionError


def _is_made_twice(error: BaseException) -> bool:
    return re.search("already exists|duplicate key|unique constraint", f"{error} {error.__cause__}", re.I) is not None


def _has_tables(url: URL) -> bool:
    """Return whether Optuna's tables exist. A reader makes none: a search may be making them at this moment."""
    if url.drivername == SCHEME:
        return True  # the proxy has made them
    try:
        engine = create_engine(url)
    except (NoSuchModuleError, ImportError, ArgumentError):
        return True  # the caller opens the database next, and reports what is wrong
    try:
        return inspect(engine).has_table("alembic_version")
    except DBAPIError:
        return True
    finally:
        engine.dispose()


def _use_write_ahead_log(url: URL) -> None:
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    finally:
        engine.dispose()


def _relax_synchronization(engine: Engine) -> None:
    """Let SQLite sync less often: in WAL mode NORMAL survives a killed process, and a power cut loses the last commits.

    FULL, the default, waits for the disk at each of the several commits of a trial.
    """

    @event.listens_for(engine, "connect")
    def _set(connection: object, record: object) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")  # type: ignore[attr-defined]

    engine.dispose()  # connections that are open already have not run the listener
