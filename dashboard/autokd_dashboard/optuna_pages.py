"""optuna-dashboard below a prefix of another server, with attributes that a person can read.

It knows no prefix: its page asks for ``/static`` and ``/api`` at the top. Two places of its script are rewritten so
that it takes the prefix from its own address. A version of it whose script lacks them is not served, and says so.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from autokd.errors import StorageError
from autokd_dashboard.access import Application

MARK = "/dashboard"
_HERE = 'location.pathname.split("/dashboard")[0]'
_REWRITTEN = (
    ('url_prefix:"/dashboard"', f'url_prefix:{_HERE}+"/dashboard"'),
    ('(null!=e?e:"")}handleResponse', f"(null!=e?e:{_HERE})}}handleResponse"),
)
_STUDY = re.compile(r"/api/studies/\d+/?")
_HIDDEN = ("autokd:outcome:", "autokd:contents", "autokd:config_digest")
"""Beginnings of study attributes that are AutoKD's own bookkeeping."""


def optuna_application(inner: Application, prefix: str, *, may_write: bool = False) -> Application:
    """Return optuna-dashboard as a WSGI application whose paths begin with a prefix.

    Args:
        inner: ``optuna_dashboard.wsgi`` of a storage.
        prefix: beginning of its paths, such as "/optuna/x".
        may_write: whether requests may change and delete studies.
    """

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        path = path.removeprefix(prefix) or "/"
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD") and not may_write:
            return _send(start_response, "403 Forbidden", "text/plain", b"This dashboard only shows studies.")
        if path == "/static/bundle.js":
            headers = [("Content-Encoding", "gzip"), ("Cache-Control", "private, max-age=3600")]
            return _send(start_response, "200 OK", "text/javascript", rewritten_bundle(), headers)
        # What is rewritten must not be packed.
        changed = environ | {"PATH_INFO": path, "SCRIPT_NAME": "", "HTTP_ACCEPT_ENCODING": "identity"}
        status, headers, body = _asked(inner, changed)
        if path.startswith(MARK):
            body = body.replace(b'src="/static/', f'src="{prefix}/static/'.encode())
        elif _STUDY.fullmatch(path) and status.startswith("200"):
            body = json.dumps(readable(json.loads(body))).encode()
        headers = [(name, _led(name, value, prefix)) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    return application


@cache
def rewritten_bundle() -> bytes:
    """Return optuna-dashboard's script, gzipped, that finds its prefix in its own address.

    Raises:
        StorageError: if this version of it has another script.
    """
    text = resources.files("optuna_dashboard").joinpath("public", "bundle.js").read_text(encoding="utf-8")
    for old, new in _REWRITTEN:
        if text.count(old) != 1:
            raise StorageError(
                "this version of optuna-dashboard cannot be shown below /optuna. Install 0.18 to 0.21, or run "
                "'optuna-dashboard' on the study's database."
            )
        text = text.replace(old, new)
    return gzip.compress(text.encode(), 6, mtime=0)


def readable(detail: dict[str, Any]) -> dict[str, Any]:
    """Return a study's details with few, readable attributes in place of AutoKD's JSON.

    Args:
        detail: answer of optuna-dashboard about one study.
    """
    study = [each for each in detail.get("user_attrs", []) if not str(each.get("key", "")).startswith(_HIDDEN)]
    detail = detail | {"user_attrs": [line for each in study for line in _study_lines(each)]}
    for kind in ("trials", "best_trials"):
        if kind in detail:
            detail[kind] = [each | {"user_attrs": _trial_lines(each.get("user_attrs", []))} for each in detail[kind]]
    names = {line["key"] for trial in detail.get("trials", []) for line in trial["user_attrs"]}
    if "union_user_attrs" in detail:
        detail["union_user_attrs"] = [{"key": name, "sortable": name in ("seconds",)} for name in sorted(names)]
    return detail


def _study_lines(attribute: Mapping[str, Any]) -> list[dict[str, str]]:
    name, value = str(attribute["key"]).removeprefix("autokd:"), _loaded(attribute["value"])
    if name == "reward_scales" and isinstance(value, dict):
        return [_line(f"scale of {part}", f"{scale:.4g}") for part, scale in value.items()]
    if name == "race" and isinstance(value, dict):
        return [_line("race", str(value.get("verdict", "")))]
    if name == "seconds_used" and isinstance(value, float):
        return [_line("seconds", f"{value:.0f}")]
    return [_line(name, value if isinstance(value, str) else json.dumps(value))]


def _trial_lines(attributes: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for each in attributes:
        value = _loaded(each["value"])
        if each["key"] == "autokd:job" and isinstance(value, dict):
            found += [_line("distiller", str(value.get("formula"))), _line("digest", str(value.get("digest")))]
        elif each["key"] == "autokd:outcome" and isinstance(value, dict):
            found += _outcome_lines(value)
        else:
            found.append(_line(str(each["key"]), value if isinstance(value, str) else json.dumps(value)))
    return found


def _outcome_lines(outcome: Mapping[str, Any]) -> list[dict[str, str]]:
    lines = [_line("seconds", f"{outcome.get('seconds') or 0:.1f}"), _line("worker", str(outcome.get("worker") or ""))]
    if outcome.get("cause"):
        lines += [_line("cause", str(outcome["cause"])), _line("message", str(outcome.get("message")))]
    metrics = outcome.get("metrics") or {}
    plain = {name: value for name, value in metrics.items() if isinstance(value, float) and "/" not in name}
    return lines + [_line(name, f"{value:.5g}") for name, value in plain.items()]


def _loaded(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def _line(key: str, value: Any) -> dict[str, str]:
    return {"key": key, "value": str(value)}


def _asked(app: Application, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
    got: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        got[:] = [status, headers]
        return lambda body: None

    answer = app(environ, start)
    try:
        body = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return got[0], got[1], body


def _led(name: str, value: str, prefix: str) -> str:
    """Return a header; a redirection leads to the prefix."""
    if name.lower() != "location":
        return value
    path = "/" + value.split("://", 1)[-1].partition("/")[2] if "://" in value else value
    return prefix + path


def _send(
    start_response: Any, status: str, media_type: str, body: bytes, headers: Iterable[tuple[str, str]] = ()
) -> list[bytes]:
    start_response(status, [("Content-Type", media_type), ("Content-Length", str(len(body))), *headers])
    return [body]
