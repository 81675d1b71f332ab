"""Filter in front of every request: host, size, token, rate, origin. What comes behind it has a user.

Plain ASGI, since a filter that buffers answers would hold back streamed logs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import anyio.to_thread

from autokd.errors import StorageError
from autokd.service.rates import RateLimit
from autokd.service.settings import Limits
from autokd.service.tokens import TokenBook, User
from autokd_dashboard.access import SECURITY_HEADERS, is_same_origin, knows_host

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "autokd-service"
REMEMBER_S = 2.0
"""Seconds for which a token is known without a look into the database; a revoked one works so much longer."""
PUBLIC = ("/login", "/api/v1/health", "/static/site.css", "/static/site.js")
"""Paths that need no token: they show nothing of a search."""
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Refusal(Exception):
    """A request that is not answered.

    Args:
        status: HTTP status.
        reason: what is wrong, for the client.
        wait_s: seconds after which it may be tried again; None: never.
    """

    status: int
    reason: str
    wait_s: float | None = None


class Guard:
    """ASGI application that lets allowed requests through to another, with ``scope["state"]["user"]`` set.

    Args:
        app: application to protect.
        tokens: known tokens.
        limits: bounds on requests.
        host: name or address that the server listens on.
        names: further names of the server, such as that of a proxy in front of it.
    """

    def __init__(
        self, app: App, tokens: TokenBook, limits: Limits, host: str = "127.0.0.1", names: tuple[str, ...] = ()
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._limits = limits
        self._host = host
        self._names = names
        self._rates = RateLimit(limits.requests_per_s, limits.burst)
        self._failures = RateLimit(limits.failures_per_min / 60.0, limits.failures_per_min)
        self._known: dict[str, tuple[float, User]] = {}
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        environ = _environ(scope)
        scope.setdefault("state", {})
        guarded = _with_headers(send, scope)
        try:
            user = await self._admit(scope, environ)
            scope["state"]["user"] = user
            if user is not None and _query_token(scope) is not None:
                await _log_in(scope, guarded)
                return
            await self._app(scope, _bounded(receive, self._limits.body_bytes, scope), guarded)
        except Refusal as refusal:
            await _refuse(refusal, scope, guarded)

    async def _admit(self, scope: Scope, environ: Mapping[str, str]) -> User | None:
        """Return the user of a request; None where none is needed.

        Raises:
            Refusal: if the request is not allowed.
        """
        if not knows_host(environ.get("HTTP_HOST", ""), self._host, self._names):
            raise Refusal(403, "This service answers requests to its own address only.")
        if int(environ.get("CONTENT_LENGTH") or 0) > self._limits.body_bytes:
            raise Refusal(413, f"A request has at most {self._limits.body_bytes} bytes.")
        if not is_same_origin(environ):
            raise Refusal(403, "This service answers its own pages and clients with a token only.")
        text = _offered(scope, environ)
        address = (scope.get("client") or ("?", 0))[0]
        if text is None and scope["path"] in PUBLIC:
            return None
        user = None if self._failures.is_empty(address) else await self._user_of(text)
        if user is None:
            if scope["path"] in PUBLIC:
                return None
            if text is not None:
                self._count_failure(address)
            raise Refusal(401, "A token is needed: 'Authorization: Bearer TOKEN', or sign in at /login.")
        if (wait_s := self._rates.wait_s(user.name)) > 0:
            raise Refusal(429, f"Too many requests of the token {user.name!r}.", wait_s)
        return user

    def _count_failure(self, address: str) -> None:
        if (wait_s := self._failures.wait_s(address)) > 0:
            raise Refusal(429, "Too many wrong tokens from this address.", wait_s)

    async def _user_of(self, text: str | None) -> User | None:
        if not text:
            return None
        now = time.monotonic()
        with self._lock:
            known = self._known.get(text)
        if known is not None and now - known[0] < REMEMBER_S:
            return known[1]
        try:
            user = await anyio.to_thread.run_sync(self._tokens.user_of, text)
        except StorageError as error:
            raise Refusal(503, str(error), 5.0) from error
        if user is not None:
            with self._lock:
                if len(self._known) > 1000:
                    self._known.clear()
                self._known[text] = (now, user)
        return user


def cookie_header(scope: Scope, token: str) -> str:
    """Return the header that stores a token in the browser; an empty one removes it.

    Args:
        scope: the request.
        token: token to store.
    """
    age = "" if token else "; Max-Age=0"
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    return f"{_cookie_name(scope)}={token}; Path=/; HttpOnly; SameSite=Lax{secure}{age}"


def _environ(scope: Scope) -> dict[str, str]:
    """Return a request as WSGI would describe it, as far as the rules of access read it."""
    environ = {"REQUEST_METHOD": scope["method"]}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").upper().replace("-", "_")
        environ["CONTENT_LENGTH" if key == "CONTENT_LENGTH" else f"HTTP_{key}"] = value.decode("latin-1")
    if not environ.get("CONTENT_LENGTH", "0").isdigit():
        environ["CONTENT_LENGTH"] = "0"
    return environ


def _offered(scope: Scope, environ: Mapping[str, str]) -> str | None:
    scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if (token := _query_token(scope)) is not None:
        return token
    try:
        cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(_cookie_name(scope))
    except CookieError:
        return None
    return None if cookie is None else cookie.value


def _cookie_name(scope: Scope) -> str:
    # Browsers share cookies among the ports of a host, on which several services may listen.
    return f"{COOKIE}-{(scope.get('server') or ('', 0))[1]}"


def _query(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)


def _query_token(scope: Scope) -> str | None:
    return next((value for key, value in _query(scope) if key == "token"), None)


def _bounded(receive: Receive, most: int, scope: Scope) -> Receive:
    """Return a receiver that refuses a body that is longer than its header said, or had no length."""
    received = 0

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            scope["state"]["is_too_large"] = True  # the framework takes the exception for a body that it cannot read
            raise Refusal(413, f"A request has at most {most} bytes.")
        return message

    return bounded


def _with_headers(send: Send, scope: Scope) -> Send:
    """Return a sender that adds the security headers, and the status of a body that was too large."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", [])}
            added = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS if name not in _OWN_VALUES]
            # Without any referrer, browsers would not say from which page a form comes (Origin: null).
            added.append((b"Referrer-Policy", b"same-origin"))
            if b"content-security-policy" not in present:
                added.append((_POLICY_NAME.encode(), CONTENT_POLICY.encode()))
            message["headers"] = [*message.get("headers", []), *added]
            if scope["state"].get("is_too_large"):
                message["status"] = 413
        await send(message)

    return sending


_POLICY_NAME = "Content-Security-Policy"
_OWN_VALUES = (_POLICY_NAME, "Referrer-Policy")


async def _log_in(scope: Scope, send: Send) -> None:
    """Store the token of the address in a cookie, and lead to the same page without it."""
    rest = urlencode([(key, value) for key, value in _query(scope) if key != "token"])
    place = "/" + quote(scope["path"].lstrip("/\\"))
    headers = [
        (b"location", (f"{place}?{rest}" if rest else place).encode()),
        (b"set-cookie", cookie_header(scope, _query_token(scope) or "").encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(refusal: Refusal, scope: Scope, send: Send) -> None:
    wants_page = any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
    if refusal.status == 401 and wants_page and scope["method"] == "GET":
        headers = [(b"location", f"/login?next={quote(scope['path'])}".encode())]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    from json import dumps

    headers = [(b"content-type", b"application/json")]
    if refusal.wait_s is not None:
        headers.append((b"retry-after", str(max(1, round(refusal.wait_s))).encode()))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": dumps({"error": refusal.reason}).encode()})
