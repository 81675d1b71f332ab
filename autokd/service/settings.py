"""Settings of a service, as its operator gives them: folders, limits, rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """Bounds on what clients may send.

    Args:
        body_bytes: most bytes of a request.
        requests_per_s: requests a second that one token may send on average.
        burst: requests that one token may send at once.
        failures_per_min: wrong tokens a minute that one address may send.
        open_searches: searches of one token that may be queued or running; the next submit is refused.
        running: searches that run at once; further ones wait.
    """

    body_bytes: int = 2**19
    requests_per_s: float = 100.0
    burst: int = 200
    failures_per_min: int = 20
    open_searches: int = 50
    running: int = 20


@dataclass(frozen=True)
class ServiceSettings:
    """What the operator of a service decides.

    Args:
        folder: folder of the service: its database, the runs, the cache. The cluster must see it under this path.
        roots: folders that config files may name, and everything below them. Links are followed before the check.
        database: address of the service's database; None: ``service.db`` in ``folder``.
        allows_mmdetection: whether config files may name configs of MMDetection, which are code.
        limits: bounds on what clients may send.
        price: price of an hour of one running search, in ``currency``; None: no costs are shown.
        currency: name of the currency.
        check_every_s: seconds between two looks at the jobs.
        storage: address of the database of all studies without a password, or "@FILE" that holds it; None: study.db in
            the run directory of each.
    """

    folder: Path
    roots: tuple[Path, ...] = ()
    database: str | None = None
    allows_mmdetection: bool = False
    limits: Limits = Limits()
    price: float | None = None
    currency: str = "USD"
    check_every_s: float = 2.0
    storage: str | None = None

    @property
    def database_address(self) -> str:
        """Address of the service's database."""
        return self.database or f"sqlite:///{self.folder / 'service.db'}"

    @property
    def cache(self) -> Path:
        """Folder of trained teachers and cached taps, shared by all searches."""
        return self.folder / "cache"

    def run_directory(self, search_id: str) -> Path:
        """Return the folder of a search's run.

        Args:
            search_id: id of the search.
        """
        return self.folder / "runs" / search_id

    def submission(self, search_id: str) -> Path:
        """Return the folder of the config file of a search, which is the working directory of its job.

        Args:
            search_id: id of the search.
        """
        return self.folder / "submitted" / search_id

    def log(self, search_id: str) -> Path:
        """Return the file to which the logs of a search's ended jobs are copied.

        Args:
            search_id: id of the search.
        """
        return self.folder / "logs" / f"{search_id}.log"
