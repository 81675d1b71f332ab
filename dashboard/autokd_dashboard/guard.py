"""What stands between the network and the dashboard: who may ask, and when a study may be read."""

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

    The dashboard can delete studies and asks for no password; a page elsewhere could reach it by letting its own
    name point to the loopback address.
    """

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if is_loopback(host_of(environ.get("HTTP_HOST", "localhost"))):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"This dashboard answers to localhost only.\n"]

    return guarded


def whole_studies(app: Application, publishing: threading.Lock) -> Application:
    """Let a study be read only while its figures are not being stored.

    A figure is many attributes, each written by itself; the page cannot stand half of an old and half of a new one.
    """

    def waiting(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not _STUDY.fullmatch(environ.get("PATH_INFO", "")):
            return app(environ, start_response)
        with publishing:
            return app(environ, start_response)

    return waiting


def host_of(header: str) -> str:
    """Return "localhost" for "localhost:8080", "::1" for "[::1]:8080"."""
    return header[1:].split("]", 1)[0] if header.startswith("[") else header.rsplit(":", 1)[0]


def is_loopback(host: str) -> bool:
    """Whether ``host`` means this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
