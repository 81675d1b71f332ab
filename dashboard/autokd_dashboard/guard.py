"""Filter in front of the dashboard: when a study may be read."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

from autokd_dashboard.access import Application

_STUDY = re.compile(r"/api/studies/\d+/?")


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
