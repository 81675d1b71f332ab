"""Who may ask the dashboard: whoever has its token, from its own pages, and by default to read.

optuna-dashboard itself asks nobody for anything, and can delete studies. On a machine with several users every one of
them reaches the loopback address, and a page elsewhere reaches it through a browser that runs here.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application."""

_READING = ("GET", "HEAD", "OPTIONS")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
"""The Host header: a name or an address, and perhaps a port. Any port may stand there, since ssh forwards ports."""
SECURITY_HEADERS = (
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),  # the token is in the first address
)


@dataclass(frozen=True)
class Access:
    """Rules of one dashboard.

    Attributes:
        token: text that a request must bring: in its address (``?token=``), which sets a cookie, in that cookie, or in
            the header ``Authorization: Bearer``.
        host: name or address that the server listens on.
        may_write: whether requests may change and delete studies.
    """

    token: str
    host: str = "127.0.0.1"
    may_write: bool = False

    def guard(self, app: Application) -> Application:
        """Return an application that answers the requests that the rules allow.

        Args:
            app: application to protect.
        """

        def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
                kept = [pair for pair in headers if pair[0].lower() not in _NAMES]
                return start_response(status, [*kept, *SECURITY_HEADERS], *more)

            refusal = self._refusal(environ)
            if refusal is not None:
                start(refusal[0], [("Content-Type", "text/plain; charset=utf-8")])
                return [f"{refusal[1]}\n".encode()]
            if _query_tokens(environ):
                start("303 See Other", self._log_in(environ))
                return [b""]
            return app(environ, start)

        return guarded

    def _refusal(self, environ: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return status and text of a refusal, or None."""
        if not knows_host(environ.get("HTTP_HOST", ""), self.host):
            return "403 Forbidden", "This dashboard answers requests to its own address only."
        if not self._has_token(environ):
            return "403 Forbidden", "Open the address that 'autokd dashboard' has printed: it has the token."
        if not is_same_origin(environ):
            return "403 Forbidden", "This dashboard answers its own pages only."
        if not self.may_write and environ.get("REQUEST_METHOD", "") not in _READING:
            return "403 Forbidden", "This dashboard only shows studies. Start it with --write to change them."
        return None

    def _has_token(self, environ: Mapping[str, Any]) -> bool:
        offered = _query_tokens(environ)
        scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer":
            offered.append(credentials.strip())
        try:
            cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(self._cookie_name(environ))
        except CookieError:
            cookie = None
        if cookie is not None:
            offered.append(cookie.value)
        return any(hmac.compare_digest(text.encode(errors="replace"), self.token.encode()) for text in offered)

    def _log_in(self, environ: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return headers that put the token into a cookie, and lead to the same page without it in the address."""
        rest = [(key, value) for key, value in _query(environ) if key != "token"]
        place = "/" + quote(environ.get("PATH_INFO", "/").lstrip("/\\"), encoding="latin-1")
        cookie = f"{self._cookie_name(environ)}={self.token}; Path=/; HttpOnly; SameSite=Lax"
        return [
            ("Location", f"{place}?{urlencode(rest)}" if rest else place),
            ("Set-Cookie", cookie),
            ("Cache-Control", "no-store"),
        ]

    def _cookie_name(self, environ: Mapping[str, Any]) -> str:
        # Browsers share cookies among the ports of a host, on which several dashboards may listen.
        return f"autokd-dashboard-{environ.get('SERVER_PORT', '')}"


_NAMES = {name.lower() for name, _ in SECURITY_HEADERS}


def new_token() -> str:
    """Return a token of 256 random bits, in characters that an address and a cookie may have."""
    return secrets.token_urlsafe(32)


def knows_host(header: str, host: str, names: Iterable[str] = ()) -> bool:
    """Return whether a Host header names this server.

    A page elsewhere can reach the loopback address by a name of its own that resolves to it (DNS rebinding); such
    requests carry that name.

    Args:
        header: the header.
        host: name or address that the server listens on.
        names: further names of the server, such as that of a proxy in front of it.
    """
    found = _HOST.fullmatch(header)
    if found is None:
        return False
    name = found["name"].strip("[]").lower()
    if name in {each.lower() for each in names}:
        return True
    if is_loopback(host):
        return name in ("localhost", "127.0.0.1", "::1", host.lower())
    return name in {host.lower(), socket.gethostname().lower(), "localhost"} or _is_address(name)


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


def is_same_origin(environ: Mapping[str, Any]) -> bool:
    """Return whether a request comes from a page of this dashboard, from the address line, or from no browser.

    Browsers say where a request comes from: ``Origin`` with all but the plainest, ``Sec-Fetch-Site`` with all.

    Args:
        environ: the request as WSGI describes it.
    """
    origin, site = environ.get("HTTP_ORIGIN"), environ.get("HTTP_SEC_FETCH_SITE")
    if origin is not None:
        return origin.lower() in {f"{scheme}://{environ['HTTP_HOST'].lower()}" for scheme in ("http", "https")}
    is_reading = environ.get("REQUEST_METHOD", "") in _READING
    if site is not None:
        # A link elsewhere may lead here, as long as it only shows a page.
        is_link = is_reading and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        return site in ("same-origin", "none") or is_link
    # An old browser's write without Origin; scripts send the token in a header, which no foreign page can.
    return is_reading or "HTTP_AUTHORIZATION" in environ


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _query(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    return parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)


def _query_tokens(environ: Mapping[str, Any]) -> list[str]:
    return [value for key, value in _query(environ) if key == "token"]
