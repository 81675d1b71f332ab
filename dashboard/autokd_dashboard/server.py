"""Serve the pages of a run, and optuna-dashboard of it or of a database, by default on the loopback address."""

from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from autokd.errors import StorageError
from autokd_dashboard.access import Access, Application, is_loopback, new_token
from autokd_dashboard.catalog import SingleRun
from autokd_dashboard.guard import whole_studies
from autokd_dashboard.publish import publish_changed
from autokd_dashboard.single import run_application
from autokd_dashboard.source import open_storage, results_of

logger = logging.getLogger(__name__)

REFRESH_S = 20.0
"""Seconds between two checks whether the figures of a search have changed."""
PORTS_TRIED = 20
"""Number of ports to try, from the one that was asked for."""


def serve(
    run_or_url: str | Path,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    may_write: bool = False,
    price: float | None = None,
    currency: str = "USD",
) -> None:
    """Serve until Ctrl-C, and print the address with the token that requests must bring.

    Args:
        run_or_url: run directory, SQLite file or URL of a database.
        host: address to listen on. Other than on the loopback address, the token crosses the network unencrypted.
        port: port; if it is taken, the next free one.
        may_write: whether the pages may change and delete studies.
        price: price of an hour of the run; None: no costs are shown.
        currency: its currency.

    Raises:
        StorageError: if there is no study, or no port is free.
    """
    with DashboardServer(run_or_url, host, port, may_write=may_write, price=price, currency=currency) as server:
        print(f"Dashboard: {server.login_address} (Ctrl-C ends it)", flush=True)
        print(
            "Everyone who has this address can " + ("change and delete" if may_write else "see") + " studies.",
            flush=True,
        )
        if not is_loopback(host):
            print("It is not encrypted: others on the network can read the token. Prefer ssh -L.", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print("The dashboard has ended.", flush=True)


class DashboardServer:
    """A dashboard that serves in a thread of its own, as a context manager.

    Args:
        run_or_url: run directory, SQLite file or URL of a database.
        host: address to listen on.
        port: port; if it is taken, the next free one; 0: any free one.
        may_write: whether requests may change and delete studies.
        refresh_s: seconds between two checks whether the figures have changed.
        price: price of an hour of the run; None: no costs are shown.
        currency: its currency.

    Attributes:
        token: text that requests must bring; new for each server.
    """

    def __init__(
        self,
        run_or_url: str | Path,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        may_write: bool = False,
        refresh_s: float = REFRESH_S,
        price: float | None = None,
        currency: str = "USD",
    ) -> None:
        from optuna_dashboard import wsgi

        self._run_or_url = run_or_url
        self._storage = open_storage(run_or_url)
        self._refresh_s = refresh_s
        self._ended = threading.Event()
        self._publishing = threading.Lock()
        optuna = whole_studies(wsgi(self._storage), self._publishing)
        app = run_application(optuna, _run_of(run_or_url, price, currency), may_write=may_write)
        self.token = new_token()
        self._http = _listen(host, port, Access(self.token, host, may_write).guard(app))
        self._threads = [
            threading.Thread(target=self._http.serve_forever, name="dashboard", daemon=True),
            threading.Thread(target=self._refresh, name="dashboard-figures", daemon=True),
        ]

    @property
    def address(self) -> str:
        """Address of the server, e.g. "http://127.0.0.1:8080/"."""
        host, port = str(self._http.server_address[0]), self._http.server_address[1]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    @property
    def login_address(self) -> str:
        """Address to open in a browser, with the token."""
        return f"{self.address}?token={self.token}"

    def __enter__(self) -> DashboardServer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._http.shutdown()
        self._http.server_close()
        for thread in self._threads:
            thread.join(timeout=5)

    def wait(self) -> None:
        """Block until the server ends; Ctrl-C arrives here as KeyboardInterrupt."""
        while not self._ended.wait(timeout=1.0):
            pass

    def _refresh(self) -> None:
        """Store the figures of every study whose trials have changed."""
        from optuna.exceptions import StorageInternalError

        known: dict[int, tuple[int, bool]] = {}
        while not self._ended.is_set():
            try:
                with self._publishing:
                    publish_changed(self._storage, known, results_of(self._run_or_url))
            except (StorageError, StorageInternalError) as error:
                # The search may hold the database, or it may be read-only: serving goes on without new figures.
                logger.info("the figures could not be stored: %s", error)
            self._ended.wait(self._refresh_s)


def _run_of(run_or_url: str | Path, price: float | None, currency: str) -> SingleRun | None:
    """Return the run whose pages are shown; None for a database, which has no run directory."""
    path = Path(run_or_url)
    return SingleRun(path.absolute(), None, price, currency) if path.is_dir() else None


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _ThreadingServerV6(_ThreadingServer):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Write no log: a page asks again every few seconds."""


def _listen(host: str, port: int, app: Application) -> WSGIServer:
    """Return a server that listens on ``port``, on one of the next few, or on any free one."""
    server_class = _ThreadingServerV6 if ":" in host else _ThreadingServer
    candidates = [*range(port, min(port + PORTS_TRIED, 65536)), 0] if port else [0]
    reason = ""
    for candidate in candidates:
        try:
            return make_server(host, candidate, app, server_class=server_class, handler_class=_QuietHandler)
        except OSError as error:
            reason = str(error)
    raise StorageError(f"the dashboard cannot listen on {host}: {reason}. Name another host or port.")
