"""Does a Ray cluster answer at an address, and does it take this user's token?

Ray itself would try for minutes, and calls both "failed to connect".
"""

from __future__ import annotations

import contextlib
import os
import socket

from autokd.errors import RuntimeUnavailableError
from autokd.runtime.ray.token import TOKEN_REMEDY, current_token

_CONNECT_TIMEOUT_S = 15.0
"""Seconds in which the address must accept a connection, before Ray is asked to join."""
_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""A method of Ray's control service that changes nothing; an empty message is a valid request."""


def require_cluster(address: str) -> None:
    """Require that a cluster listens at an address.

    Args:
        address: host:port of a cluster's control service, or "auto".

    Raises:
        RuntimeUnavailableError: if it is no address, or no cluster listens there.
    """
    if address.startswith("ray://"):
        raise RuntimeUnavailableError(
            f"ray address {address!r}: searches do not run over Ray's client protocol. Run on a node of the "
            "cluster with its address as host:port (or auto), or use 'autokd submit' with its http:// address."
        )
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise RuntimeUnavailableError(f"ray address {address!r} is not host:port (default port: 6379), nor auto.")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S) as connection:
            if not _uses_tls() and not _speaks_grpc(connection):
                raise RuntimeUnavailableError(
                    no_answer(
                        address, "another service listens there (8265 is the dashboard's port, 6379 Ray's own default)"
                    )
                )
    except OSError as error:
        raise RuntimeUnavailableError(no_answer(address, str(error))) from error


def require_token(address: str) -> None:
    """Require that a cluster asks for no token, or takes the one that this process would send.

    Args:
        address: host:port of a cluster that listens, or "auto".

    Raises:
        RuntimeUnavailableError: if it asks for a token, and this process has none or another one.
    """
    where, token = _resolved(address), current_token()
    if where is None or _uses_tls() or not _is_refused(where, token):
        return
    found = "this process sends a wrong one" if token else "this process sends none"
    raise RuntimeUnavailableError(f"the Ray cluster at {address!r} asks for a token, and {found}.\n{TOKEN_REMEDY}")


def no_answer(address: str, reason: str) -> str:
    """Return the words about a cluster that does not answer.

    Args:
        address: where it should answer.
        reason: what happened instead.
    """
    return (
        f"no Ray cluster answers at {address!r}: {reason}\n"
        "Start one with 'ray start --head' and give its host:port, or leave the address out for a local Ray."
    )


def _resolved(address: str) -> str | None:
    """Return host:port of an address; None if Ray alone knows what it means."""
    if address == "auto":
        from ray._private import services

        with contextlib.suppress(AttributeError, ValueError, OSError):  # private; Ray tells what is wrong
            address = services.canonicalize_bootstrap_address(address) or ""
    return address if address.rpartition(":")[2].isdigit() and "://" not in address else None


def _is_refused(address: str, token: str | None) -> bool:
    """Whether the control service wants another token; whatever else it says is left to Ray."""
    try:
        import grpc
    except ImportError:
        return False
    metadata = [("authorization", f"Bearer {token}")] if token else []
    # A cluster is reached directly, as Ray's own clients reach it.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_ALIVE)(b"", timeout=_CONNECT_TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def _uses_tls() -> bool:
    return os.environ.get("RAY_USE_TLS", "0") != "0"


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether the other side speaks HTTP/2, as every gRPC server does (RFC 9113, section 3.4).

    It must answer the client's preface and empty SETTINGS frame with a SETTINGS frame, whose type is 4.
    """
    empty_settings = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty_settings)
    answer = connection.recv(9)  # the header of a frame: length (3 bytes), type, flags, stream (4)
    return len(answer) == 9 and answer[3] == 4
