"""Filters in front of the dashboard: which hosts may ask, and when a study may be read."""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application."""

_STUDY = re.compile(r"/api/studies/\d+/?")


def refuse_foreign_hosts(app: Application) -> Application:
    """Answer only requests that name a loopback host.

    The dashboard can delete studies and asks for no password. A page elsewhere could reach it by a name of its own that
    resolves to the loopback address (DNS rebinding); such requests carry that name as their host.

    Args:
        app: application to protect.
    """

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if is_loopback(host_of(environ.get("HTTP_HOST", "localhost"))):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"This dashboard answers requests to localhost only.\n"]

    return guarded


def whole_studies(app: Application, publishing: threading.Lock) -> Application:
    """Let a study be read only while its figures are not being stored.

    A figure is many attributes, each written by itself, and the page fails on a mix of an old and a new figure.

    Args:
        app: application to protect.
        publishing: lock that is held while figures are stored.
    """

    def waiting(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not _STUDY.fullmatch(environ.get("PATH_INFO", "")):
            return app(environ, start_response)
        with publishing:
            return app(environ, start_response)

    return waiting


def host_of(header: str) -> str:
    """Return "localhost" for "localhost:8080", "::1" for "[::1]:8080".

    Args:
        header: the Host header of a request.
    """
    return header[1:].split("]", 1)[0] if header.startswith("[") else header.rsplit(":", 1)[0]


def is_loopback(host: str) -> bool:
    """Return whether a host name means this machine only.

    Args:
        host: name or address.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
