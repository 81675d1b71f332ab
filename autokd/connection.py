"""A connection of a client to a service: address, token, and what goes wrong on the way."""

from __future__ import annotations

import json
import os
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from autokd.errors import AutoKDError

ADDRESS_VARIABLE = "AUTOKD_SERVICE"
TOKEN_VARIABLE = "AUTOKD_TOKEN"


class ServiceError(AutoKDError):
    """A service refused a request, or did not answer.

    Args:
        message: the service's words.
        status: HTTP status; 0: it did not answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    """A connection to a service.

    Args:
        address: address of the service; None: the environment variable AUTOKD_SERVICE.
        token: token; "@FILE": the file that holds it; None: the environment variable AUTOKD_TOKEN, likewise.
        timeout_s: seconds to wait for an answer.

    Attributes:
        address: address of the service, without a slash at its end.

    Raises:
        ServiceError: if no address or token is given, or the file of the token cannot be read.
    """

    def __init__(self, address: str | None, token: str | None, timeout_s: float) -> None:
        address = address or os.environ.get(ADDRESS_VARIABLE)
        token = token or os.environ.get(TOKEN_VARIABLE)
        if not address or not token:
            raise ServiceError(
                f"the address of the service and a token are needed: set {ADDRESS_VARIABLE} and {TOKEN_VARIABLE} "
                "(@FILE for a file that holds the token)."
            )
        if urlsplit(address).scheme not in ("http", "https"):
            raise ServiceError(f"the address {address!r} of the service does not begin with http:// or https://.")
        self.address = address.rstrip("/")
        self.timeout_s = timeout_s
        self._token = _token(token)
        self._opener = build_opener(_NoRedirect)

    def json(self, method: str, place: str, body: Any = None) -> Any:
        """Return the content of an answer.

        Args:
            method: HTTP method.
            place: path below ``/api/v1/``.
            body: content to send; None: none.

        Raises:
            ServiceError: if the service refuses, or does not answer.
        """
        with self.open(method, place, body) as answer:
            return json.load(answer)

    def open(self, method: str, place: str, body: Any = None, *, is_endless: bool = False) -> HTTPResponse:
        """Return an answer, whose content is still to be read.

        Args:
            method: HTTP method.
            place: path below ``/api/v1/``.
            body: content to send; None: none.
            is_endless: whether the answer may pause for as long as it likes.

        Raises:
            ServiceError: if the service refuses, or does not answer.
        """
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        request = Request(f"{self.address}/api/v1/{place}", data, headers, method=method)
        try:
            answer: HTTPResponse = self._opener.open(request, timeout=None if is_endless else self.timeout_s)
        except HTTPError as error:
            raise ServiceError(_reason(error), error.code) from None
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise ServiceError(f"the service at {self.address} does not answer: {reason}.") from None
        return answer


class _NoRedirect(HTTPRedirectHandler):
    """The token must not follow a redirection to another server."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _token(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ServiceError(f"the file of the token cannot be read: {error}.") from error


def _reason(error: HTTPError) -> str:
    """Return the service's words on a refusal."""
    text = error.read(2**16).decode(errors="replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}: {text[:200]}".strip()
