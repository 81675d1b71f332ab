"""A storage of Optuna that bears hiccups of its database: a server that restarts, a file that is locked.

Optuna gives up at the first failed commit, and with it every training in flight would end.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from autokd.errors import StorageError
from autokd.files import is_full
from autokd.storage import grpc_proxy

logger = logging.getLogger(__name__)

PATIENCE_S = 300.0
"""Seconds for which a database may stay away."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 15.0
_LASTING = (
    "disk i/o error",
    "readonly database",
    "malformed",
    "not a database",
    "authentication",
    "permission denied",
    "no such table",
)
"""Words of SQLite and PostgreSQL about what no waiting repairs."""

_DATABASE_ERRORS = (StorageInternalError, DBAPIError, DisconnectionError, PoolTimeoutError)

_R = TypeVar("_R")


class PatientStorage(BaseStorage):
    """A storage whose every call is tried again while its database stays away, for ``PATIENCE_S`` at most.

    A commit that the database made, but could not confirm, is made twice. That does no harm: attributes are replaced by
    themselves, a second trial that nobody asked for is put back into the queue by the resumed run, and a trial that
    is told twice stays as it was told.

    Args:
        inner: the storage.
        name: name of the database, for messages; without secrets.
        patience_s: seconds for which the database may stay away.
    """

    def __init__(self, inner: BaseStorage, name: str, patience_s: float = PATIENCE_S) -> None:
        self._inner = inner
        self._name = name
        self._patience_s = patience_s
        self._has_given_up = False

    def __getattr__(self, name: str) -> Any:
        # What a storage has beside ``BaseStorage``, such as RDBStorage's own methods.
        if name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def attempt(self, call: Callable[[], _R]) -> _R:
        """Return what a call returns, tried again while the database stays away.

        Args:
            call: the call.

        Raises:
            StorageError: if the database stays away for longer than the patience, or waiting does not help.
        """
        began_s = time.monotonic()
        pause_s = _FIRST_PAUSE_S
        is_again = False
        errors: tuple[type[BaseException], ...] = (*_DATABASE_ERRORS, *grpc_proxy.rpc_errors())
        while True:
            try:
                return call()
            except UpdateFinishedTrialError:
                if not is_again:
                    raise
                return cast(_R, True)  # told by the attempt before, which the database could not confirm
            except errors as error:
                if not _is_of_the_database(error):
                    raise
                is_over = self._has_given_up or time.monotonic() - began_s > self._patience_s
                if is_over or not _may_pass(error):
                    # From here on each call is made once: the run ends, and must not wait again and again.
                    self._has_given_up = True
                    raise StorageError(_words(self._name, error)) from error
                logger.warning("%s: the database does not answer; it is tried again: %s", self._name, _reason(error))
            # Drivers that wait for one server must not come back in step.
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s, is_again = min(2 * pause_s, _LONGEST_PAUSE_S), True


def _patient(name: str) -> Callable[..., Any]:
    def method(self: PatientStorage, *args: Any, **options: Any) -> Any:
        return self.attempt(lambda: getattr(self._inner, name)(*args, **options))

    method.__name__ = name
    return method


# Every public method of a storage; those that Optuna adds later too.
for _name in dir(BaseStorage):
    if not _name.startswith("_") and callable(getattr(BaseStorage, _name)):
        setattr(PatientStorage, _name, _patient(_name))
PatientStorage.__abstractmethods__ = frozenset()


def _is_of_the_database(error: BaseException) -> bool:
    """Return whether the database failed, and not what it was asked for (a constraint, wrong SQL)."""
    if isinstance(error, grpc_proxy.rpc_errors()):
        return grpc_proxy.is_away(error)
    if isinstance(error, StorageInternalError):
        cause = error.__cause__ or error.__context__
        return cause is None or not isinstance(cause, DBAPIError) or _is_of_the_database(cause)
    return isinstance(error, (OperationalError, InterfaceError, DisconnectionError, PoolTimeoutError)) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def _may_pass(error: BaseException) -> bool:
    reason = _reason(error).lower()
    return not is_full(reason) and not any(words in reason for words in _LASTING)


def _reason(error: BaseException) -> str:
    if isinstance(error, grpc_proxy.rpc_errors()):
        return " ".join(grpc_proxy.words_of(error).split())[:300]
    cause = error.__cause__ or error.__context__ if isinstance(error, StorageInternalError) else error
    original = getattr(cause, "orig", None) or cause or error
    return " ".join(str(original).split())[:300]


def _words(name: str, error: BaseException) -> str:
    reason = _reason(error)
    if is_full(reason):
        return f"{name}: no space is left for the database: {reason}. Make room, then go on with --resume."
    if not _may_pass(error):
        return f"{name}: the database can no longer be used: {reason}. Repair it, then go on with --resume."
    return (
        f"{name}: the database has not answered for {PATIENCE_S / 60:g} minutes: {reason}. What has finished is kept; "
        "start the database, then go on with --resume."
    )
