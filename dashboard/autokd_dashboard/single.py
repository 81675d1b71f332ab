"""The pages of one run as a WSGI application, with Optuna's dashboard beside them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

from autokd_dashboard.access import Application
from autokd_dashboard.catalog import SingleRun
from autokd_dashboard.optuna_pages import optuna_application
from autokd_dashboard.site import Question, Site, static_names

_OWN = ("/runs/", "/parts/")
_REASONS = {200: "OK", 204: "No Content", 303: "See Other", 404: "Not Found", 405: "Method Not Allowed"}


def run_application(optuna: Application, run: SingleRun | None, *, may_write: bool = False) -> Application:
    """Return an application with a run's pages at ``/``, and Optuna's under ``/optuna`` and at its own paths.

    Args:
        optuna: optuna-dashboard as it comes.
        run: the run; None: there is a database alone, which Optuna's dashboard shows at ``/``.
        may_write: whether requests may change and delete studies.
    """
    below = optuna_application(optuna, "/optuna", may_write=may_write)
    above = optuna_application(optuna, "", may_write=may_write)
    site = Site()

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/optuna" or path.startswith("/optuna/"):
            return below(environ, start_response)
        if run is None or not _is_own(path):
            return above(environ, start_response)
        return _answered(site, run, environ, start_response)

    return application


def _is_own(path: str) -> bool:
    return path == "/" or path.startswith(_OWN) or path.removeprefix("/static/") in static_names()


def _answered(site: Site, run: SingleRun, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    question = Question(
        path=environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace"),
        method="POST" if environ.get("REQUEST_METHOD") == "POST" else "GET",
        query=dict(parse_qsl(environ.get("QUERY_STRING", ""))),
        takes_gzip="gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""),
    )
    answer = site.answer(question, run)
    body = answer.body if answer.file is None else answer.file.read_bytes()
    headers = [("Content-Type", answer.media_type), ("Content-Length", str(len(body))), *answer.headers.items()]
    start_response(f"{answer.status} {_REASONS.get(answer.status, 'Answer')}", headers)
    return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else body]
