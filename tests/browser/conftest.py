"""A browser (Debian's chromium, driven by playwright), and servers with runs to look at."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.big_run import write_big_run

CHROMIUM = os.environ.get("AUTOKD_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
TIMEOUT_MS = float(os.environ.get("AUTOKD_BROWSER_TIMEOUT_MS", "60000"))
NUM_TRIALS = int(os.environ.get("AUTOKD_BROWSER_TRIALS", "5000"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser; tests that need it skip where it is absent."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'autokd[browser]'")
    pytest.importorskip("fastapi", reason="the service needs autokd[service]")
    if not CHROMIUM:
        pytest.skip("there is no chromium (apt-get install chromium, or set AUTOKD_CHROMIUM)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@dataclass
class Served:
    """A service with a big run, a small one that runs, and tokens."""

    address: str
    bed: Any
    big: str
    small: str

    def enter(self, browser: Any, user: str = "ann", path: str = "/", **context: Any) -> Any:
        """Return a page of a user who has signed in."""
        page = new_page(browser, **context)
        page.goto(f"{self.address}{path}?token={self.bed.tokens[user]}")
        return page


def new_page(browser: Any, **context: Any) -> Any:
    """Return a page in a context of its own.

    The pages' own policy forbids to evaluate text as a script, which waiting for an expression needs.
    """
    page = browser.new_context(**{"bypass_csp": True, **context}).new_page()
    page.set_default_timeout(TIMEOUT_MS)
    return page


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service on a free port, whose jobs are fakes."""
    uvicorn = pytest.importorskip("uvicorn")
    from autokd.service.app import make_app
    from tests.support.service_fakes import CONFIG, make_bed

    bed = make_bed(tmp_path_factory.mktemp("browser") / "service", price=2.0, check_every_s=0.5)
    big, small = bed.submit("ann", CONFIG.replace("small", "big")), bed.submit("bob")
    bed.step()
    write_big_run(bed.backend.run_dir(bed.job(big)), NUM_TRIALS)
    from autokd.service.jobs import JobStatus

    bed.backend.jobs[bed.job(big)] = JobStatus("succeeded")
    write_big_run(bed.backend.run_dir(bed.job(small)), 30, is_over=False)
    bed.step()
    server = uvicorn.Server(uvicorn.Config(make_app(bed.service), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Served(f"http://127.0.0.1:{port}", bed, big, small)
    server.should_exit = True
    thread.join(timeout=20)


def screenshots() -> Path | None:
    """Folder for screenshots; None: none are taken."""
    folder = os.environ.get("AUTOKD_SCREENSHOTS")
    return Path(folder) if folder else None
