"""A study behind Optuna's gRPC proxy: a server that alone speaks to the database, for many drivers."""

from __future__ import annotations

import re
import sys

from optuna.storages import BaseStorage
from sqlalchemy import make_url
from sqlalchemy.engine import URL

from autokd.errors import StorageError
from autokd.storage.address import shown

SCHEME = "grpc"
"""Scheme of a proxy's address: grpc://host:13000."""
_DEFAULT_PORT = 13000
_ANSWER_S = 15.0
"""Seconds in which the proxy must answer when a study is opened."""
# The proxy passes on the words of its database's errors alone, without their class.
_DATABASE_AWAY = re.compile("OperationalError|InterfaceError|during the commit|server closed|connection", re.IGNORECASE)


def open_proxy(address: URL | str) -> BaseStorage | None:
    """Return the storage behind a proxy; None if the address is of another kind.

    Args:
        address: address of a database, or of a proxy: grpc://host:port.

    Raises:
        StorageError: if no proxy answers, or its address has more than host and port.
    """
    url = make_url(address)
    if url.drivername != SCHEME:
        return None
    if url.username or url.password or url.database or url.query:
        raise StorageError(
            f"{shown(url)}: the address of a gRPC proxy has a host and a port alone, grpc://host:{_DEFAULT_PORT}. "
            "User, password and database belong to the proxy, which opens the database."
        )
    try:
        from optuna.storages import GrpcStorageProxy

        storage = GrpcStorageProxy(host=url.host or "localhost", port=url.port or _DEFAULT_PORT)
        storage.wait_server_ready(_ANSWER_S)
    except ImportError as error:
        raise StorageError(f"{shown(url)}: gRPC is not installed ({error}): pip install grpcio protobuf.") from error
    except ConnectionError as error:
        raise StorageError(
            f"{shown(url)}: no gRPC proxy of Optuna's has answered for {_ANSWER_S:g} s. Check host and port, and start "
            "it beside the database (docs/operations.md, Databases)."
        ) from error
    return storage


def rpc_errors() -> tuple[type[BaseException], ...]:
    """Return the class of gRPC's errors; nothing as long as nobody has imported gRPC."""
    grpc = sys.modules.get("grpc")
    return (grpc.RpcError,) if grpc is not None else ()


def is_away(error: BaseException) -> bool:
    """Return whether the proxy, or the database behind it, did not answer.

    Args:
        error: one of ``rpc_errors``.
    """
    code = getattr(getattr(error, "code", lambda: None)(), "name", "")
    if code == "UNKNOWN":
        return _DATABASE_AWAY.search(words_of(error)) is not None
    return code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


def words_of(error: BaseException) -> str:
    """Return what the proxy said.

    Args:
        error: one of ``rpc_errors``.
    """
    return str(getattr(error, "details", lambda: "")() or error)
