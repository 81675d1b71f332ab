"""The service's database: searches, tokens, audit log. SQLite or PostgreSQL, by SQLAlchemy.

The service keeps who, what, when and where. How a search goes is in its run directory and study; a summary is copied
here by each look at the jobs, so that a list of searches is one query.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import JSON, Engine, Float, String, Text, create_engine, event
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from autokd.errors import StorageError
from autokd.storage import shown, storage_url

T = TypeVar("T")

RETRY_S = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts at a transaction while the database does not answer."""


class Base(DeclarativeBase):
    """Base of the tables."""


class Search(Base):
    """A submitted search: who, what, when, where, and its state as last seen."""

    __tablename__ = "autokd_searches"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    owner: Mapped[str] = mapped_column(String(100), index=True)
    wanted: Mapped[str] = mapped_column(String(16), default="run")
    """What its users want: run, stop or delete."""
    state: Mapped[str] = mapped_column(String(16), default="queued", index=True)
    message: Mapped[str] = mapped_column(Text, default="")
    attempt: Mapped[int] = mapped_column(default=0)
    """Number of the present job, from 1; 0 before the first."""
    losses: Mapped[int] = mapped_column(default=0)
    """Jobs in a row that the cluster lost."""
    trials: Mapped[int] = mapped_column(default=0)
    """Number of trials to evaluate."""
    submitted_trials: Mapped[int] = mapped_column(default=0)
    """Number of trials that the present job was started with."""
    created_s: Mapped[float] = mapped_column(Float)
    started_s: Mapped[float | None] = mapped_column(Float, default=None)
    ended_s: Mapped[float | None] = mapped_column(Float, default=None)
    running_s: Mapped[float] = mapped_column(Float, default=0.0)
    """Seconds that earlier jobs of the search ran."""
    summary: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)

    @property
    def job_id(self) -> str:
        """Id of the present job. It follows from the row, so that a job is never submitted twice."""
        return f"autokd-{self.id}-{self.attempt}"

    @property
    def is_open(self) -> bool:
        """Whether it is queued, runs or ends."""
        return self.state in OPEN_STATES


OPEN_STATES = ("queued", "running", "stopping")
ENDED_STATES = ("finished", "stopped", "failed")


class Token(Base):
    """A token's name, role and digest; the token itself is stored nowhere."""

    __tablename__ = "autokd_tokens"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_s: Mapped[float] = mapped_column(Float)
    revoked_s: Mapped[float | None] = mapped_column(Float, default=None)


class AuditEntry(Base):
    """One line of the audit log: who did what to which search, and how it ended."""

    __tablename__ = "autokd_audit"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at_s: Mapped[float] = mapped_column(Float, index=True)
    who: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(40))
    search: Mapped[str] = mapped_column(String(32), default="")
    detail: Mapped[str] = mapped_column(Text, default="")
    address: Mapped[str] = mapped_column(String(100), default="")


class Database:
    """Sessions of the service's database, whose tables are made if they are absent.

    Args:
        address: SQLAlchemy address.

    Raises:
        StorageError: if the database cannot be opened.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            self._engine = _engine(storage_url(address))
            Base.metadata.create_all(self._engine)
        except (ArgumentError, DBAPIError, NoSuchModuleError, ImportError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise StorageError(
                f"{shown(address)}: the service's database cannot be opened: {reason}. Check the address and that its "
                "server runs."
            ) from error
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Yield a session; commit at the end, roll back if an exception is raised."""
        with self._sessions.begin() as session:
            yield session

    def run(self, work: Callable[[Session], T]) -> T:
        """Return what ``work`` returns in one transaction; repeat it while the database does not answer.

        Args:
            work: function of the session; it may be called several times.

        Raises:
            StorageError: if the database does not answer for some seconds.
        """
        for pause in (*RETRY_S, None):
            try:
                with self.session() as session:
                    return work(session)
            except OperationalError as error:
                if pause is None:
                    raise StorageError(f"{shown(self._address)}: the service's database does not answer.") from error
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        # A connection that the server closed meanwhile is replaced before it is used.
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20)
    Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": 30.0})

    @event.listens_for(engine, "connect")
    def _set(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine
